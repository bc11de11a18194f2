package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Syscall6 makes a system call and returns what the kernel did: a value, or
// −errno, which Errno tells apart.
//
//go:noescape
func Syscall6(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr

// Syscall3 is Syscall6 with three arguments.
func Syscall3(nr, a1, a2, a3 uintptr) uintptr { return Syscall6(nr, a1, a2, a3, 0, 0, 0) }

// Errno is the errno in a result of Syscall6, 0 if there is none.
func Errno(r uintptr) unix.Errno {
	if r > ^uintptr(4095) {
		return unix.Errno(-r)
	}
	return 0
}

// callC calls a function of the C ABI with three arguments.
//
//go:noescape
func callC(fn, a1, a2, a3 uintptr) uintptr

// Spin runs n pauses (PAUSE on amd64, YIELD on arm64).
//
//go:noescape
func Spin(n uint64)

// ExitGroup ends the process of the calling task: exit_group(2).
func ExitGroup(code int) {
	for {
		Syscall3(unix.SYS_EXIT_GROUP, uintptr(code), 0, 0)
	}
}

// ExitTask ends the calling task alone: exit(2).
func ExitTask(code int) {
	for {
		Syscall3(unix.SYS_EXIT, uintptr(code), 0, 0)
	}
}

// GetTID wraps gettid(2).
func GetTID() int { return int(Syscall3(unix.SYS_GETTID, 0, 0, 0)) }

// GetPPID wraps getppid(2).
func GetPPID() int { return int(Syscall3(unix.SYS_GETPPID, 0, 0, 0)) }

// Yield wraps sched_yield(2).
func Yield() { Syscall3(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// Prctl wraps prctl(2).
func Prctl(op, a2, a3, a4, a5 uintptr) unix.Errno {
	return Errno(Syscall6(unix.SYS_PRCTL, op, a2, a3, a4, a5, 0))
}

// Setpgid wraps setpgid(2).
func Setpgid(pid, pgid int) unix.Errno {
	return Errno(Syscall3(unix.SYS_SETPGID, uintptr(pid), uintptr(pgid), 0))
}

// CloseRange wraps close_range(2) (Linux 5.9).
func CloseRange(first, last, flags uint) unix.Errno {
	return Errno(Syscall3(unix.SYS_CLOSE_RANGE, uintptr(first), uintptr(last), uintptr(flags)))
}

// Read wraps read(2) and returns the number of bytes.
func Read(fd int, buf unsafe.Pointer, n int) (int, unix.Errno) {
	r := Syscall3(unix.SYS_READ, uintptr(fd), uintptr(buf), uintptr(n))
	if e := Errno(r); e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Write wraps write(2) and returns the number of bytes.
func Write(fd int, buf unsafe.Pointer, n int) (int, unix.Errno) {
	r := Syscall3(unix.SYS_WRITE, uintptr(fd), uintptr(buf), uintptr(n))
	if e := Errno(r); e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Close wraps close(2).
func Close(fd int) { Syscall3(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// openRead opens a path for reading. The path must end in a NUL byte.
func openRead(path string) (int, unix.Errno) {
	at := unix.AT_FDCWD
	r := Syscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(unsafe.StringData(path))),
		unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if e := Errno(r); e != 0 {
		return -1, e
	}
	return int(r), 0
}

// PollIn waits until fd is readable or hung up, at most timeout nanoseconds.
func PollIn(fd int, timeout int64) (ready bool, errno unix.Errno) {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	ts := timespec(timeout)
	r := Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&ts)), 0, 8, 0)
	if e := Errno(r); e != 0 {
		return false, e
	}
	return r > 0, 0
}

// futex operations without FUTEX_PRIVATE_FLAG: workers of one group can be
// different processes.
const (
	futexWait = 0
	futexWake = 1
)

// FutexWait waits while *addr is val, at most timeout nanoseconds. It returns 0
// when woken, EAGAIN when *addr was not val, ETIMEDOUT or EINTR.
func FutexWait(addr *uint32, val uint32, timeout int64) unix.Errno {
	ts := timespec(timeout)
	return Errno(Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexWait, uintptr(val),
		uintptr(unsafe.Pointer(&ts)), 0, 0))
}

// FutexAwait is FutexWait without a timeout, for a task that a signal wakes.
func FutexAwait(addr *uint32, val uint32) unix.Errno {
	return Errno(Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexWait, uintptr(val), 0, 0, 0))
}

// FutexWake wakes at most n waiters on addr and returns how many it woke.
func FutexWake(addr *uint32, n int32) int {
	r := Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), futexWake, uintptr(n), 0, 0, 0)
	if Errno(r) != 0 {
		return 0
	}
	return int(r)
}

// timespec is a duration in nanoseconds as the kernel wants it.
func timespec(ns int64) unix.Timespec {
	if ns < 0 {
		ns = 0
	}
	return unix.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9}
}
