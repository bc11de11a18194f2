package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// Where a worker of epoll_storm finds the descriptors of its set.
const (
	epollCounter = iota
	epollInstance
)

// epollStorm has producers ring an eventfd and consumers wait for it on one
// epoll instance; wake latency is a consumer's wait that brought an event.
func epollStorm(s *Slab) {
	producer := uint64(s.Pos) < s.Params[0]
	counter, instance := int(s.DataFDs[epollCounter]), int(s.DataFDs[epollInstance])
	for !s.Stopped() {
		if producer {
			s.ring(counter, s.Params[2])
			bare.Yield()
		} else {
			s.serve(counter, instance)
		}
		s.pass()
	}
}

func (s *Slab) ring(counter int, n uint64) {
	for i := uint64(0); i < n && !s.Stopped(); i++ {
		if errno := bare.AddCounter(counter, 1); errno == 0 {
			s.WorkUnits++
		} else if errno != unix.EAGAIN {
			s.soft(errno)
		}
		if i%checkpointUnits == checkpointUnits-1 {
			s.look(bare.Now())
		}
	}
}

// serve waits for an event and takes it, unless another consumer was faster.
func (s *Slab) serve(counter, instance int) {
	start := s.blocks()
	ready, errno := bare.EpollWaitOne(instance, pollNs/1e6)
	if errno != 0 && errno != unix.EINTR {
		s.soft(errno)
		s.sleepUntil(start + pollNs)
	}
	if ready {
		if _, errno := bare.ReadCounter(counter); errno == 0 {
			s.woke(start, bare.Now())
		}
	}
	s.rested()
	s.spin(smallSpin)
}
