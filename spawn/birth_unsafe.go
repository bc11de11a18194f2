package spawn

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

const cloneIntoCgroup = 0x200000000 // CLONE_INTO_CGROUP, Linux 5.7

// cloneArgs is the clone3 request for a process. The kernel writes its pidfd to a
// word outside the Go heap and stacks: the request holds a mere number, which
// would go stale when a stack moves. cgroup is a descriptor, −1 for none.
func cloneArgs(cgroup int, pidfd *int32) *bare.CloneArgs {
	args := &bare.CloneArgs{
		Flags:      unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_FILES,
		PidFD:      uint64(uintptr(unsafe.Pointer(pidfd))),
		ExitSignal: uint64(unix.SIGCHLD),
	}
	if cgroup >= 0 {
		args.Flags |= cloneIntoCgroup
		args.Cgroup = uint64(cgroup)
	}
	return args
}

// fillContainer writes what a container's leader needs, and ties the slabs of its
// workers to it.
func fillContainer(c *worker.Container, p *groupPlan, slabs []*worker.Slab, areas *bare.Area) {
	const ids = 1<<worker.StepGID | 1<<worker.StepUID
	c.SpawnerPID = int32(unix.Getpid())
	c.Members = uint32(len(slabs))
	c.FirstSlab = slabAddress(slabs[0])
	if len(slabs) > 1 {
		c.SlabStride = slabAddress(slabs[1]) - slabAddress(slabs[0])
	}
	c.Areas, c.Entry, c.Shared = areas.Address(), bare.Code(worker.MemberMain), slabs[0].Shared
	c.Steps, c.UID, c.GID = p.setup.Steps&ids, p.setup.UID, p.setup.GID
	copy(c.Comm[:15], p.group.Pcomm)
	for _, s := range slabs {
		s.Mode, s.Container = worker.ModeMember, uintptr(unsafe.Pointer(c))
		s.Setup.Steps &^= ids // the leader drops them for all
		c.NumFDs += s.NumFDs
	}
}

func slabAddress(s *worker.Slab) uintptr { return uintptr(unsafe.Pointer(s)) }

// setAffinity is sched_setaffinity(2) for a set of any size.
func setAffinity(pid int, mask *worker.CPUMask) error {
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETAFFINITY, uintptr(pid), unsafe.Sizeof(*mask), uintptr(unsafe.Pointer(mask)))
	if errno != 0 {
		return errno
	}
	return nil
}

// futexWaitFor waits while *word is val, for at most timeout. Any reason to
// return is as good as another: the caller looks again.
func futexWaitFor(word *uint32, val uint32, timeout time.Duration) {
	const futexWait = 0
	ts := unix.NsecToTimespec(int64(timeout))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(val), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// futexWakeAll wakes every waiter on word.
func futexWakeAll(word *uint32) {
	const futexWake = 1
	unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, math.MaxInt32)
}

// waitPidfd reaps the child behind pidfd without waiting. It returns false while
// the child lives.
func waitPidfd(pidfd int, info *exitStatus) (bool, error) {
	var si unix.Siginfo
	var ru unix.Rusage
	err := unix.Waitid(unix.P_PIDFD, pidfd, &si, unix.WEXITED|unix.WNOHANG, &ru)
	if err != nil {
		return false, err
	}
	if si.Signo == 0 {
		return false, nil
	}
	// siginfo of SIGCHLD: si_pid, si_uid, si_status follow the three head words.
	status := *(*int32)(unsafe.Add(unsafe.Pointer(&si), 24))
	info.killed = si.Code != cldExited
	info.value = int(status)
	info.cpuNs = ru.Utime.Nano() + ru.Stime.Nano()
	return true, nil
}

const cldExited = 1 // CLD_EXITED of include/uapi/asm-generic/siginfo.h
