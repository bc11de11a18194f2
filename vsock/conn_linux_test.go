package vsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The sockets themselves are tested in guests: see vsock/vhostuser.

func TestOpError(t *testing.T) {
	at := Addr{CIDHost, 1024}
	for _, tt := range []struct {
		op      string
		err     error
		is      error
		text    string
		timeout bool
	}{
		{"read", &fs.PathError{Op: "read", Path: "vsock", Err: unix.ECONNRESET}, unix.ECONNRESET, "read vsock 3:5->2:1024: read: connection reset by peer", false},
		{"write", &fs.PathError{Op: "write", Path: "vsock", Err: os.ErrDeadlineExceeded}, os.ErrDeadlineExceeded, "write vsock 3:5->2:1024: i/o timeout", true},
		{"read", &fs.PathError{Op: "read", Path: "vsock", Err: os.ErrClosed}, net.ErrClosed, "read vsock 3:5->2:1024: use of closed network connection", false},
		{"close", os.ErrClosed, net.ErrClosed, "close vsock 3:5->2:1024: use of closed network connection", false},
		{"dial", os.NewSyscallError("connect", unix.ETIMEDOUT), unix.ETIMEDOUT, "dial vsock 3:5->2:1024: connect: connection timed out", true},
		{"accept", os.NewSyscallError("accept4", unix.EMFILE), unix.EMFILE, "accept vsock 3:5->2:1024: accept4: too many open files", false},
	} {
		err := opError(tt.op, Addr{3, 5}, at, tt.err)
		var op *net.OpError
		if !errors.As(err, &op) || op.Timeout() != tt.timeout || !errors.Is(err, tt.is) || err.Error() != tt.text {
			t.Errorf("%v: %q, want %q (timeout %v)", tt.err, err, tt.text, op.Timeout())
		}
	}
	if err := opError("read", nil, at, nil); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(at.Network(), " ", at); got != "vsock 2:1024" {
		t.Error(got)
	}
}
