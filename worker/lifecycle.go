package worker

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// forkExit forks children that exit at once; wake latency is the wait for each.
func forkExit(s *Slab) {
	for !s.Stopped() {
		pid, errno := bare.Fork()
		if pid == 0 && errno == 0 {
			bare.ExitGroup(0)
		}
		if errno != 0 {
			s.soft(errno)
			bare.Yield()
		} else {
			s.WorkUnits++
			s.reap(pid)
		}
		s.pass()
	}
}

// reap waits for a child that ends by itself.
func (s *Slab) reap(pid int) {
	start := s.blocks()
	for bare.WaitChild(pid) == unix.EINTR {
	}
	s.woke(start, bare.Now())
}

// signalStorm has two workers interrupt each other with SIGUSR2, which does
// nothing. Each word of the region is the tid of a worker that is ready for it.
func signalStorm(s *Slab) {
	signals, work := s.Params[0], s.Params[1]
	if errno := bare.HandleNothing(unix.SIGUSR2); errno != 0 {
		s.soft(errno)
		return
	}
	bare.Unblock(unix.SIGUSR2)
	mine, partner := s.word(uintptr(s.Pos&1)*4), s.word(uintptr(1-s.Pos&1)*4)
	atomic.StoreUint32(mine, uint32(s.TID))
	for !s.Stopped() {
		for i := uint64(0); i < signals && !s.Stopped(); i++ {
			tid := atomic.LoadUint32(partner)
			if tid == 0 {
				break
			}
			if bare.SignalTask(int(tid), unix.SIGUSR2) == 0 {
				s.WorkUnits++
			}
			if i%checkpointUnits == checkpointUnits-1 {
				s.look(bare.Now())
			}
		}
		s.work(work)
		s.pass()
	}
	atomic.StoreUint32(mine, 0)
}

// cgroupChurn moves its process from one cgroup to the next.
func cgroupChurn(s *Slab) {
	groups, cycle := s.Params[0], int64(s.Params[1])
	for i := uint64(0); !s.Stopped(); i++ {
		s.blocks()
		// A pid of 0 is the writer.
		s.soft(bare.WriteNumber(int(s.DataFDs[i%groups%MaxDataFDs]), 0))
		s.sleepUntil(bare.Now() + cycle)
		s.rested()
		s.spin(smallSpin)
		s.pass()
	}
}

// Values of reapModes: how cgroup_attach_storm gets rid of its children.
const (
	reapByKernel = iota // SIGCHLD is ignored
	reapByWait
)

var reapModes = []string{"sig_ign", "waitpid"}

// cgroupAttachStorm forks children that exit at once and writes each one's pid
// to another cgroup, so that attaching and exiting race.
func cgroupAttachStorm(s *Slab) {
	mode, dest := s.Params[1], int(s.DataFDs[0])
	if mode == reapByKernel {
		s.soft(bare.IgnoreChildren())
	}
	for !s.Stopped() {
		pid, errno := bare.Fork()
		if pid == 0 && errno == 0 {
			bare.ExitGroup(0)
		}
		if errno != 0 {
			if errno != unix.EAGAIN {
				s.soft(errno)
			}
			bare.Yield()
			s.pass()
			continue
		}
		errno = bare.WriteNumber(dest, uint32(pid))
		if errno == 0 || errno == unix.ESRCH { // the child was faster
			s.WorkUnits++
		} else {
			s.soft(errno)
		}
		if mode == reapByWait {
			s.reap(pid)
		}
		s.pass()
	}
}
