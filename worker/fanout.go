package worker

import (
	"math"
	"sync/atomic"

	"github.com/guestinit/guestinit/internal/bare"
)

// futexFanOut is a messenger that wakes all receivers of its set at once; wake
// latency is a receiver's wait.
func futexFanOut(s *Slab) {
	generation := s.word(0)
	receivers, spin := int32(s.Params[0]), s.Params[1]
	if s.Pos == 0 {
		s.IsMessenger = 1
	}
	for !s.Stopped() {
		s.work(spin)
		if s.Pos == 0 {
			atomic.AddUint32(generation, 1)
			bare.FutexWake(generation, receivers)
			s.spin(smallSpin)
		} else {
			was, start := atomic.LoadUint32(generation), s.blocks()
			if !s.awaitChange(generation, was) {
				return
			}
			s.woke(start, bare.Now())
		}
		s.pass()
	}
}

// thunderingHerd is a waker that lets all waiters of its set go at once, after a
// sleep, for a number of batches. Wake latency is a waiter's wait and the
// waker's sleep.
func thunderingHerd(s *Slab) {
	generation := s.word(0)
	batches, pause := s.Params[1], int64(s.Params[2])
	for batch := uint64(0); !s.Stopped(); batch++ {
		switch {
		case s.Pos != 0:
			start := s.blocks()
			if !s.awaitChange(generation, atomic.LoadUint32(generation)) {
				return
			}
			s.woke(start, bare.Now())
			s.WorkUnits++
		case batch == batches:
			s.restUntilStop()
			return
		default:
			if pause > 0 {
				s.sleepFor(pause)
			}
			atomic.AddUint32(generation, 1)
			bare.FutexWake(generation, math.MaxInt32)
			s.spin(smallSpin)
		}
		s.pass()
	}
}

// asymmetricWaker is a waker of one scheduling class and a wakee of another.
func asymmetricWaker(s *Slab) {
	word, burst := s.word(0), s.Params[2]
	class := s.Params[1]
	if s.Pos == 0 {
		class = s.Params[0]
	}
	s.joinClass(class)
	for !s.Stopped() {
		if s.Pos == 0 {
			s.work(burst)
			atomic.AddUint32(word, 1)
			bare.FutexWake(word, 1)
		} else {
			start := s.blocks()
			if !s.awaitChange(word, atomic.LoadUint32(word)) {
				return
			}
			s.woke(start, bare.Now())
			s.work(burst)
		}
		s.pass()
	}
}
