package worker

import "github.com/guestinit/guestinit/internal/bare"

func pipeIO(s *Slab) {
	burst := s.Params[0]
	for !s.Stopped() {
		s.work(burst)
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
	start := s.blocks()
	if !s.awaitByte() {
		return false
	}
	if !s.Stopped() {
		s.woke(start, bare.Now())
	}
	return true
}
