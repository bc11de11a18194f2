package worker

import (
	"math"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// gateTimeoutNs bounds the wait at the start gate.
const gateTimeoutNs = 30e9

// Exit statuses of a worker process.
const (
	ExitCommitted = 0
	ExitGate      = 1  // the gate did not open in time
	ExitBirth     = 70 // a step of its birth failed; SoftErrno tells nothing then
)

// ProcessMain is the life of a forked worker, from its birth to its end. arg is
// the address of its Slab. It is the fn of bare.Area.Clone and never returns.
func ProcessMain(arg uintptr) {
	s := SlabAt(arg)
	guardOrphan(s)
	if bare.Setpgid(0, 0) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	if bare.InstallHandlers(&s.Stop, &s.Fault) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	bare.RestoreMask()
	if s.closeForeignFDs() != 0 {
		bare.ExitGroup(ExitBirth)
	}
	s.TID = int32(bare.GetTID())
	if !s.waitGate() {
		bare.ExitGroup(ExitGate)
	}
	s.run()
	bare.ExitGroup(ExitCommitted)
}

// guardOrphan ties the life of the calling process to its spawner's: the kernel
// kills it when the spawner's thread ends, and if that happened before the tie
// was made, it ends itself. The comparison with the spawner's pid is right under
// a subreaper, and for a spawner that is PID 1: a parent pid of 1 is then the
// living spawner.
func guardOrphan(s *Slab) {
	if bare.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	if bare.GetPPID() != int(s.SpawnerPID) {
		bare.ExitGroup(0)
	}
}

// closeForeignFDs closes every descriptor that the worker does not own, standard
// input and outputs too. The table is still the spawner's: the first call takes a
// copy of the part that is needed, and so leaves the spawner's alone.
func (s *Slab) closeForeignFDs() unix.Errno {
	first := uint(0)
	if s.NumFDs > 0 && s.NumFDs <= MaxOwnedFDs {
		first = uint(s.FDs[s.NumFDs-1]) + 1
	}
	if errno := bare.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_UNSHARE); errno != 0 {
		return errno
	}
	from := uint(0)
	for i := uint32(0); i < s.NumFDs && i < MaxOwnedFDs; i++ {
		fd := uint(s.FDs[i])
		if fd > from {
			bare.CloseRange(from, fd-1, 0)
		}
		from = fd + 1
	}
	return 0
}

// waitGate waits until the spawner opens the gate; false after 30 s.
func (s *Slab) waitGate() bool {
	shared := SharedAt(s.Shared)
	gate := &shared.Gate
	atomic.StoreUint32(&s.State, StateAtGate)
	announce(&shared.BornCount)
	deadline := bare.Now() + gateTimeoutNs
	for atomic.LoadUint32(gate) == 0 {
		left := deadline - bare.Now()
		if left <= 0 {
			return false
		}
		bare.FutexWait(gate, 0, left)
	}
	return true
}

// announce counts the worker in and wakes the spawner, if it waits for it.
func announce(count *uint32) {
	atomic.AddUint32(count, 1)
	bare.FutexWake(count, 1)
}

// run is what every worker does behind the gate, process or thread.
func (s *Slab) run() {
	atomic.StoreUint32(&s.State, StateSetup)
	s.setUp()
	s.begin()
	if s.Type < uint32(len(Types)) {
		Types[s.Type].loop(s)
	}
	s.end()
}

// setUp makes the steps that the Setup asks for, in their fixed order. A step
// that fails leaves its errno and does not stop the worker.
func (s *Slab) setUp() {
	u := &s.Setup
	for step := uint32(0); step <= StepNUMANode; step++ {
		if u.Steps&(1<<step) == 0 {
			continue
		}
		s.SoftErrno[step] = uint32(s.setUpStep(step))
	}
}

func (s *Slab) setUpStep(step uint32) unix.Errno {
	u := &s.Setup
	switch step {
	case StepAffinity:
		return setAffinity(&u.Affinity)
	case StepSched:
		return u.setScheduler()
	case StepMemPolicy:
		return bare.Errno(bare.Syscall3(unix.SYS_SET_MEMPOLICY, uintptr(u.MemMode),
			uintptr(unsafe.Pointer(&u.MemNodes)), uintptr(u.MemMaxNode)))
	case StepNice:
		return bare.Errno(bare.Syscall3(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(u.Nice)))
	case StepComm:
		return bare.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&u.Comm)), 0, 0, 0)
	case StepGID:
		id := uintptr(u.GID)
		return s.changeID(unix.SYS_SETRESGID, id)
	case StepUID:
		id := uintptr(u.UID)
		return s.changeID(unix.SYS_SETRESUID, id)
	case StepNUMANode:
		return setAffinity(&u.NUMANodeMask)
	}
	return 0
}

// changeID sets the three ids of one kind. The kernel forgets the parent-death
// signal on a change of credentials, so a process makes the tie again.
func (s *Slab) changeID(nr, id uintptr) unix.Errno {
	errno := bare.Errno(bare.Syscall3(nr, id, id, id))
	if s.Thread == 0 {
		guardOrphan(s)
	}
	return errno
}

func setAffinity(mask *CPUMask) unix.Errno {
	return bare.Errno(bare.Syscall3(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*mask),
		uintptr(unsafe.Pointer(mask))))
}

// setScheduler applies the policy to the calling task. sched_setscheduler(2)
// keeps the nice value; deadline and ext need sched_setattr(2).
func (u *Setup) setScheduler() unix.Errno {
	if u.Policy != unix.SCHED_DEADLINE && u.Policy != schedExt {
		prio := int32(u.Priority)
		return bare.Errno(bare.Syscall3(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(u.Policy),
			uintptr(unsafe.Pointer(&prio))))
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: u.Policy}
	if u.Policy == unix.SCHED_DEADLINE {
		attr.Runtime, attr.Deadline, attr.Period = u.DLRuntimeNs, u.DLDeadlineNs, u.DLPeriodNs
	}
	return bare.Errno(bare.Syscall3(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&attr)), 0))
}

const schedExt = 7 // SCHED_EXT of include/uapi/linux/sched.h, Linux 6.12
