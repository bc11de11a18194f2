package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pread wraps pread64(2) and returns the number of bytes.
func Pread(fd int, buf, n uintptr, offset uint64) (int, unix.Errno) {
	return count(Syscall6(unix.SYS_PREAD64, uintptr(fd), buf, n, uintptr(offset), 0, 0))
}

// Pwrite wraps pwrite64(2) and returns the number of bytes.
func Pwrite(fd int, buf, n uintptr, offset uint64) (int, unix.Errno) {
	return count(Syscall6(unix.SYS_PWRITE64, uintptr(fd), buf, n, uintptr(offset), 0, 0))
}

func count(r uintptr) (int, unix.Errno) {
	if e := Errno(r); e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Fdatasync wraps fdatasync(2).
func Fdatasync(fd int) unix.Errno {
	return Errno(Syscall3(unix.SYS_FDATASYNC, uintptr(fd), 0, 0))
}

// Ftruncate wraps ftruncate(2).
func Ftruncate(fd int, size int64) unix.Errno {
	return Errno(Syscall3(unix.SYS_FTRUNCATE, uintptr(fd), uintptr(size), 0))
}

// EpollWaitOne waits until a descriptor of the epoll instance is ready, at most
// ms milliseconds.
func EpollWaitOne(fd, ms int) (ready bool, errno unix.Errno) {
	var ev unix.EpollEvent
	r := Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 1, uintptr(ms), 0, 8)
	if e := Errno(r); e != 0 {
		return false, e
	}
	return r > 0, 0
}

// ReadCounter takes the count of an eventfd: eventfd(2). EAGAIN means that it
// is 0.
func ReadCounter(fd int) (uint64, unix.Errno) {
	var n uint64
	_, errno := Read(fd, unsafe.Pointer(&n), 8)
	return n, errno
}

// AddCounter adds n to the count of an eventfd.
func AddCounter(fd int, n uint64) unix.Errno {
	_, errno := Write(fd, unsafe.Pointer(&n), 8)
	return errno
}

// WriteNumber writes a number in decimal in one write(2), as control files want
// a pid.
func WriteNumber(fd int, n uint32) unix.Errno {
	var b [10]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		n /= 10
		if n == 0 || i == 0 {
			break
		}
	}
	_, errno := Write(fd, unsafe.Pointer(&b[i]), len(b)-i)
	return errno
}
