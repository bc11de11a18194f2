package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

func pipeIO(s *Slab) {
	burst := s.Params[0]
	for !s.Stopped() {
		s.spin(burst)
		if burst == 0 {
			s.WorkUnits++
		}
		if !s.exchange() {
			return
		}
		s.pass()
	}
}

// exchange writes a byte to the partner and waits for the partner's. It returns
// false when the partner is gone.
func (s *Slab) exchange() bool {
	if !writeByte(int(s.WriteFD)) {
		return false
	}
	start := bare.Now()
	for !s.Stopped() {
		ready, errno := bare.PollIn(int(s.ReadFD), pollNs)
		if errno != 0 && errno != unix.EINTR {
			return false
		}
		if !ready {
			continue
		}
		n, ok := readByte(int(s.ReadFD))
		if !ok || n == 0 {
			return false
		}
		s.woke(start, bare.Now())
		return true
	}
	return true
}
