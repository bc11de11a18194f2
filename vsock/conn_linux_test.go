package vsock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

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

// connPair is a Conn on a socket of another family, and its peer.
func connPair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{f: os.NewFile(uintptr(fds[0]), "vsock")}
	f := os.NewFile(uintptr(fds[1]), "peer")
	defer f.Close()
	peer, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer
}

// Two pieces arrive whole, in order, however many calls it takes.
func TestWritev(t *testing.T) {
	for _, sizes := range [][2]int{{1, 1}, {16, 128 << 10}, {3 << 20, 5}, {1 << 20, 1 << 20}, {5, 0}, {0, 0}} {
		c, peer := connPair(t)
		a, b := bytes.Repeat([]byte("a"), sizes[0]), bytes.Repeat([]byte("b"), sizes[1])
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(peer)
			got <- all
		}()
		n, err := c.writev(a, b)
		if err := errors.Join(err, c.Close()); err != nil || n != len(a)+len(b) {
			t.Errorf("%d: %d bytes, %v", sizes, n, err)
		}
		if all := <-got; !bytes.Equal(all, append(a, b...)) {
			t.Errorf("%d: other bytes arrived, %d of them", sizes, len(all))
		}
	}
}

// A peer that does not read, or is gone, ends the call with the error that Write
// has.
func TestWritevErrors(t *testing.T) {
	c, peer := connPair(t)
	if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 8<<20)
	var op *net.OpError
	if n, err := c.writev(piece[:9], piece); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &op) || !op.Timeout() || n == 0 || n > len(piece) {
		t.Errorf("%d bytes, %v; want a deadline", n, err)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if n, err := c.writev(piece[:9], piece); !errors.Is(err, syscall.EPIPE) || !errors.As(err, &op) || n != 0 {
		t.Errorf("%d bytes, %v; want EPIPE", n, err)
	}
	c.Close()
	if _, err := c.writev(piece[:9], piece); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v of a closed connection", err)
	}
	if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v of a closed connection", err)
	}
}
