package spawn

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

// cloneArgs is the clone3 request for a forked worker, and where the kernel
// will write its pidfd.
func cloneArgs() (*bare.CloneArgs, *int32) {
	pidfd := new(int32)
	return &bare.CloneArgs{
		Flags:      unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_FILES,
		PidFD:      uint64(uintptr(unsafe.Pointer(pidfd))),
		ExitSignal: uint64(unix.SIGCHLD),
	}, pidfd
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
