package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

func pipeIO(s *Slab) {
	burst := s.Params[0]
	s.beginWaits()
	for !s.Stopped() {
		s.work(burst)
		if !s.exchange() {
			break
		}
		s.pass()
	}
	s.endWaits()
}

// exchange writes a byte to the partner and waits for the partner's. It returns
// false when the partner is gone.
func (s *Slab) exchange() bool {
	if !writeByte(int(s.WriteFD)) {
		return false
	}
	start := s.blocks()
	if !s.awaitByte() {
		return false
	}
	if !s.Stopped() {
		s.woke(start, bare.Now())
	}
	return true
}

// awaitByte reads one byte from the predecessor. It returns false when that is
// gone, and true without a byte when the worker is to stop.
func (s *Slab) awaitByte() bool {
	for !s.Stopped() {
		if s.ticks == 0 {
			ready, errno := bare.PollIn(int(s.ReadFD), pollNs)
			if errno != 0 && errno != unix.EINTR {
				return false
			}
			if !ready {
				s.lookAtPhase()
				continue
			}
		}
		n, errno := readByte(int(s.ReadFD))
		if errno != unix.EINTR {
			return errno == 0 && n == 1
		}
		s.lookAtPhase()
	}
	return true
}
