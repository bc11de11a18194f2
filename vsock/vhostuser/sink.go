package vhostuser

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxIovecs is the most pieces that one system call takes (UIO_MAXIOV).
const maxIovecs = 1024

// sink takes a connection's bytes on the spot: n bytes from the front of bufs,
// the guest's memory, of which it returns how many it took. It does not wait.
type sink func(bufs [][]byte, n int) int

// newSink returns the sink into a Unix socket. An error of the socket takes no
// bytes: whoever reads the connection meets it again.
func newSink(u *net.UnixConn) sink {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil // it is closed
	}
	return func(bufs [][]byte, n int) (sent int) {
		bufs = front(bufs, n)
		err := raw.Control(func(fd uintptr) {
			sent, _ = unix.SendmsgBuffers(int(fd), bufs, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		})
		if err != nil {
			return 0
		}
		return max(sent, 0)
	}
}

// front cuts bufs to their first n bytes, in at most as many pieces as one call
// takes. The slices in bufs are changed, what they point to is not.
func front(bufs [][]byte, n int) [][]byte {
	for i, b := range bufs {
		if i == maxIovecs {
			return bufs[:i]
		}
		if len(b) >= n {
			bufs[i] = b[:n]
			return bufs[:i+1]
		}
		n -= len(b)
	}
	return bufs
}

// skip returns bufs without their first n bytes.
func skip(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 && len(bufs) > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}
