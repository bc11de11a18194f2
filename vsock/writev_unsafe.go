package vsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev is writev(2) of two pieces on a descriptor that does not block. The
// runtime is not told of the call: it would take the processor away from one that
// lasts 20 us, as all do in an emulated CPU, and look for other work on a further
// thread, for longer than the call takes.
func writev(fd uintptr, a, b []byte) (int, error) {
	var iov [2]unix.Iovec
	iov[0].Base, iov[1].Base = unsafe.SliceData(a), unsafe.SliceData(b)
	iov[0].SetLen(len(a))
	iov[1].SetLen(len(b))
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov)), uintptr(len(iov)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
