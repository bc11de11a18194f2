package worker

import (
	"sync/atomic"

	"github.com/guestinit/guestinit/internal/bare"
)

func futexPingPong(s *Slab) {
	word, mine := s.word(0), s.Pos&1
	spin := s.Params[0]
	s.beginWaits()
	for !s.Stopped() {
		s.work(spin)
		atomic.StoreUint32(word, 1-mine)
		bare.FutexWake(word, 1)
		start := s.blocks()
		for atomic.LoadUint32(word) != mine {
			if s.Stopped() {
				break
			}
			s.await(word, 1-mine)
		}
		if s.Stopped() {
			break
		}
		s.woke(start, bare.Now())
		s.pass()
	}
	s.endWaits()
}

func mutexContention(s *Slab) {
	lock := s.word(0)
	hold, work := s.Params[1], s.Params[2]
	for !s.Stopped() {
		s.work(work)
		for !atomic.CompareAndSwapUint32(lock, 0, 1) {
			if s.Stopped() {
				return
			}
			start := s.blocks()
			bare.FutexWait(lock, 1, pollNs)
			s.woke(start, bare.Now())
		}
		s.work(hold)
		atomic.StoreUint32(lock, 0)
		bare.FutexWake(lock, 1)
		s.pass()
	}
}
