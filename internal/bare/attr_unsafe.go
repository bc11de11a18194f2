package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Fork makes a copy of the calling process, which must have one task: clone(2)
// with SIGCHLD. It returns 0 in the child.
func Fork() (pid int, errno unix.Errno) {
	return count(Syscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0))
}

// WaitChild waits until the child ends and reaps it: wait4(2).
func WaitChild(pid int) unix.Errno {
	return Errno(Syscall6(unix.SYS_WAIT4, uintptr(pid), 0, 0, 0, 0, 0))
}

// SignalTask sends a signal to a task: tkill(2).
func SignalTask(tid int, sig unix.Signal) unix.Errno {
	return Errno(Syscall3(unix.SYS_TKILL, uintptr(tid), uintptr(sig), 0))
}

// SetScheduler gives a task, the caller for 0, a policy that needs no more than
// a priority: sched_setscheduler(2).
func SetScheduler(tid, policy, priority int) unix.Errno {
	prio := int32(priority)
	return Errno(Syscall3(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), uintptr(policy), uintptr(unsafe.Pointer(&prio))))
}

// SetDeadline makes the caller SCHED_DEADLINE, with times in nanoseconds.
func SetDeadline(runtime, deadline, period uint64) unix.Errno {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE,
		Runtime: runtime, Deadline: deadline, Period: period}
	return setAttr(&attr)
}

// SetExt makes the caller SCHED_EXT (Linux 6.12).
func SetExt() unix.Errno {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: 7}
	return setAttr(&attr)
}

func setAttr(attr *unix.SchedAttr) unix.Errno {
	return Errno(Syscall3(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(attr)), 0))
}

// SetNice sets the caller's nice value: setpriority(2).
func SetNice(nice int) unix.Errno {
	return Errno(Syscall3(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(nice)))
}

// Nice is the caller's nice value: getpriority(2), whose raw result is 20 − nice.
func Nice() int { return 20 - int(Syscall3(unix.SYS_GETPRIORITY, unix.PRIO_PROCESS, 0, 0)) }

// SetAffinity puts a task, the caller for 0, on the CPUs of a mask of size bytes.
func SetAffinity(tid int, mask unsafe.Pointer, size uintptr) unix.Errno {
	return Errno(Syscall3(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), size, uintptr(mask)))
}

// Affinity reads the caller's CPU mask into size bytes, which must be zero.
func Affinity(mask unsafe.Pointer, size uintptr) unix.Errno {
	return Errno(Syscall3(unix.SYS_SCHED_GETAFFINITY, 0, size, uintptr(mask)))
}

// futex operations of priority inheritance: futex(2). The kernel takes the
// deadline of FUTEX_LOCK_PI on CLOCK_REALTIME.
const (
	futexLockPI   = 6
	futexUnlockPI = 7
)

// FutexLockPI takes a priority-inheriting lock whose word is not 0, waiting at
// most timeout nanoseconds. The word of a lock is the owner's tid.
func FutexLockPI(addr *uint32, timeout int64) unix.Errno {
	ts := timespec(clock(unix.CLOCK_REALTIME) + timeout)
	return Errno(Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexLockPI, 0,
		uintptr(unsafe.Pointer(&ts)), 0, 0))
}

// FutexUnlockPI gives up a priority-inheriting lock that others wait for.
func FutexUnlockPI(addr *uint32) unix.Errno {
	return Errno(Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexUnlockPI, 0, 0, 0, 0))
}

// Flag of include/uapi/asm-generic/signal-defs.h.
const saRestart = 0x10000000

// HandleNothing makes a signal interrupt the process and do nothing else.
func HandleNothing(sig unix.Signal) unix.Errno {
	return sigaction(sig, noopAddress(), saRestart|saOnStack)
}

// Tick has SIGALRM interrupt the calling process every period nanoseconds, and
// do nothing else: a call that waits returns EINTR then. 0 ends it. For processes
// of one task, which the signal cannot miss.
func Tick(period int64) unix.Errno {
	if errno := sigaction(unix.SIGALRM, noopAddress(), saOnStack); errno != 0 {
		return errno
	}
	Unblock(unix.SIGALRM)
	span := unix.Timeval{Sec: period / 1e9, Usec: period % 1e9 / 1e3}
	timer := [2]unix.Timeval{span, span} // struct itimerval: interval, then value
	return Errno(Syscall3(unix.SYS_SETITIMER, unix.ITIMER_REAL, uintptr(unsafe.Pointer(&timer)), 0))
}

// Unblock lets a signal through to the calling task.
func Unblock(sig unix.Signal) {
	mask := sigBit(sig)
	Syscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

// IgnoreChildren has the kernel reap the children of the process: SIGCHLD is
// ignored.
func IgnoreChildren() unix.Errno { return sigaction(unix.SIGCHLD, sigIgn, 0) }

// Action is the disposition of a signal, for putting it back.
type Action struct{ kernelSigaction }

// CurrentAction is what a signal does to the process now.
func CurrentAction(sig unix.Signal) (Action, unix.Errno) {
	var a Action
	errno := Errno(Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&a)), 8, 0, 0))
	return a, errno
}

// Restore makes the signal do what it did when the action was read.
func (a *Action) Restore(sig unix.Signal) unix.Errno {
	return Errno(Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(a)), 0, 8, 0, 0))
}

func noopAddress() uintptr
