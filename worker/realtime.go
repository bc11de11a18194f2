package worker

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// The scheduling classes that a role can have, in the order of schedClasses.
const (
	classCFS = iota
	classBatch
	classIdle
	classRT
	classDeadline
	classExt
)

var schedClasses = []string{"cfs", "batch", "idle", "rt", "deadline", "ext"}

// joinClass gives the worker the class of its role: rt is SCHED_FIFO 50,
// deadline 1 ms of CPU time every 10 ms.
func (s *Slab) joinClass(class uint64) {
	switch class {
	case classCFS:
		s.soft(bare.SetScheduler(0, unix.SCHED_NORMAL, 0))
	case classBatch:
		s.soft(bare.SetScheduler(0, unix.SCHED_BATCH, 0))
	case classIdle:
		s.soft(bare.SetScheduler(0, unix.SCHED_IDLE, 0))
	case classRT:
		s.promote(50)
	case classDeadline:
		s.soft(bare.SetDeadline(1e6, 10e6, 10e6))
	case classExt:
		s.soft(bare.SetExt())
	}
}

// Roles of priority_inversion, by position.
const (
	roleHigh = iota
	roleMedium
	roleLow
)

// Values of lockModes.
const (
	lockPlain = iota
	lockPI
)

var lockModes = []string{"plain", "pi"}

// priorityInversion has a high and a low priority share a lock while a medium
// one keeps the CPU busy. The two upper ones rest between passes: without, the
// low one never runs where there are no more CPUs than they take. Wake latency is the time from the first try until the
// lock was taken, of tries that had to wait.
func priorityInversion(s *Slab) {
	role := s.inversionRole()
	s.promote([...]int{roleHigh: 70, roleMedium: 50, roleLow: 30}[role])
	hold, work, mode := s.Params[3], s.Params[4], s.Params[5]
	rest := int64(s.Params[6])
	held := hold
	if role == roleHigh && mode == lockPlain {
		held = work
	}
	lock := s.word(0)
	for !s.Stopped() {
		s.work(work)
		switch {
		case role == roleMedium:
		case mode == lockPI:
			if !s.lockPI(lock) {
				return
			}
			s.work(held)
			s.unlockPI(lock)
		default:
			if !s.lockPlain(lock) {
				return
			}
			s.work(held)
			atomic.StoreUint32(lock, 0)
			bare.FutexWake(lock, 1)
		}
		if rest > 0 && role != roleLow {
			s.sleepUntil(bare.Now() + rest)
			s.rested()
		}
		s.pass()
	}
}

func (s *Slab) inversionRole() int {
	pos := uint64(s.Pos)
	switch {
	case pos < s.Params[0]:
		return roleHigh
	case pos < s.Params[0]+s.Params[1]:
		return roleMedium
	}
	return roleLow
}

// lockPlain takes a lock whose word is 0 or 1. It returns false when the worker
// is to stop.
func (s *Slab) lockPlain(lock *uint32) bool {
	if atomic.CompareAndSwapUint32(lock, 0, 1) {
		return true
	}
	start := s.blocks()
	for !s.Stopped() {
		bare.FutexWait(lock, 1, pollNs)
		s.lookAtPhase()
		if atomic.CompareAndSwapUint32(lock, 0, 1) {
			s.woke(start, bare.Now())
			return true
		}
	}
	return false
}

// lockPI takes a lock whose word is its owner's tid. It returns false when the
// worker is to stop, or when the lock cannot be had any more: its owner died.
func (s *Slab) lockPI(lock *uint32) bool {
	if atomic.CompareAndSwapUint32(lock, 0, uint32(s.TID)) {
		return true
	}
	start := s.blocks()
	for !s.Stopped() {
		switch errno := bare.FutexLockPI(lock, pollNs); errno {
		case 0:
			s.woke(start, bare.Now())
			return true
		case unix.ETIMEDOUT, unix.EINTR, unix.EAGAIN:
			s.lookAtPhase()
		default:
			s.soft(errno)
			return false
		}
	}
	return false
}

func (s *Slab) unlockPI(lock *uint32) {
	if !atomic.CompareAndSwapUint32(lock, uint32(s.TID), 0) {
		s.soft(bare.FutexUnlockPI(lock))
	}
}

// rtStarvation has real-time spinners beside normal ones. They starve them only
// on shared CPUs, and while the kernel throttles real-time tasks only in part.
func rtStarvation(s *Slab) {
	if uint64(s.Pos) < s.Params[0] {
		s.promote(int(s.Params[2]))
	} else {
		s.soft(bare.SetScheduler(0, unix.SCHED_NORMAL, 0))
	}
	for !s.Stopped() {
		s.work(s.Params[3])
		s.pass()
	}
}

// preemptStorm has a real-time worker that wakes often and briefly beside normal
// spinners.
func preemptStorm(s *Slab) {
	burst, sleep := s.Params[1], int64(s.Params[2])
	if s.Pos == 0 {
		s.promote(1)
	}
	for !s.Stopped() {
		s.work(burst)
		if s.Pos == 0 {
			s.sleepUntil(bare.Now() + sleep)
			s.rested()
		}
		s.pass()
	}
}
