package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CIDs with a meaning of their own (vsock(7)).
const (
	CIDLocal = 1           // this machine itself
	CIDHost  = 2           // the host of this guest
	CIDAny   = 0xffff_ffff // to listen for whichever of the machine's CIDs
)

// Port is where a launcher waits for its guest, unless it tells the guest
// another one.
const Port = 9483

// Addr is one end of a vsock connection.
type Addr struct{ CID, Port uint32 }

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns "CID:PORT".
func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// Conn is an AF_VSOCK connection. Errors are of type *net.OpError and match
// net.ErrClosed, os.ErrDeadlineExceeded or an errno.
//
// A reset by the peer reads as the end of the stream: Linux has no other word
// for it on a vsock.
type Conn struct {
	f             *os.File
	local, remote Addr
}

var _ net.Conn = (*Conn)(nil)

// Dial connects to a port of cid. It tries once; ctx limits it, and the kernel
// does, after 2 s without an answer (ETIMEDOUT). Where nobody listens the error
// is ECONNRESET, where there is no such machine ENODEV.
func Dial(ctx context.Context, cid, port uint32) (*Conn, error) {
	remote := Addr{cid, port}
	f, err := newSocket()
	if err == nil {
		if err = connect(ctx, f, remote); err == nil {
			return newConn(f, remote), nil
		}
		f.Close()
	}
	return nil, opError("dial", nil, remote, err)
}

// newSocket returns a stream socket that does not block.
func newSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// connect connects a socket. The connection is made in the background and the
// socket becomes writable when it is, or cannot be.
func connect(ctx context.Context, f *os.File, to Addr) error {
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var connErr error
	started := false
	err = raw.Write(func(fd uintptr) (done bool) {
		if !started {
			started = true
			connErr = startConnect(int(fd), to)
		} else {
			connErr = connected(int(fd))
		}
		return !errors.Is(connErr, unix.EINPROGRESS)
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		err = connErr
	}
	return os.NewSyscallError("connect", err)
}

// startConnect calls connect(2). A signal may end it before it has begun.
func startConnect(fd int, to Addr) error {
	for {
		err := unix.Connect(fd, &unix.SockaddrVM{CID: to.CID, Port: to.Port})
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EALREADY):
			return unix.EINPROGRESS // the call that was interrupted goes on
		case errors.Is(err, unix.EISCONN):
			return nil
		}
		return err
	}
}

// connected tells what became of a connection: nil, EINPROGRESS or why not. A
// socket that nothing was heard of yet is polled as writable too.
func connected(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if code != 0 {
		return unix.Errno(code)
	}
	if _, err := unix.Getpeername(fd); errors.Is(err, unix.ENOTCONN) {
		return unix.EINPROGRESS
	}
	return nil
}

func newConn(f *os.File, remote Addr) *Conn {
	c := &Conn{f: f, remote: remote}
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { c.local = sockname(int(fd)) })
	}
	return c
}

// sockname returns a socket's own address, as far as it is known.
func sockname(fd int) Addr {
	sa, err := unix.Getsockname(fd)
	if vm, ok := sa.(*unix.SockaddrVM); ok && err == nil {
		return Addr{vm.CID, vm.Port}
	}
	return Addr{CIDAny, 0}
}

// Read reads from the connection.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	if err == io.EOF {
		return n, err
	}
	return n, c.error("read", err)
}

// Write writes to the connection.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	return n, c.error("write", err)
}

// writev writes two pieces of bytes in one call, or more where the peer is slow.
func (c *Conn) writev(a, b []byte) (int, error) {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return 0, c.error("write", rawError(err))
	}
	total := 0
	var callErr error
	err = raw.Write(func(fd uintptr) (done bool) {
		for len(a)+len(b) > 0 {
			n, err := writev(fd, a, b)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return false
			case err != nil:
				callErr = os.NewSyscallError("writev", err)
				return true
			case n == 0: // no socket does so; it would be a loop without end
				callErr = os.NewSyscallError("writev", io.ErrUnexpectedEOF)
				return true
			}
			total += n
			ofA := min(n, len(a))
			a, b = a[ofA:], b[n-ofA:]
		}
		return true
	})
	if err != nil {
		callErr = rawError(err)
	}
	return total, c.error("write", callErr)
}

// Close closes the connection. What was written before arrives.
func (c *Conn) Close() error { return c.error("close", c.f.Close()) }

// CloseWrite tells the peer that no more bytes come.
func (c *Conn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

// CloseRead tells the peer that no more bytes are taken.
func (c *Conn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

func (c *Conn) shutdown(how int) error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return c.error("shutdown", rawError(err))
	}
	var callErr error
	err = raw.Control(func(fd uintptr) { callErr = unix.Shutdown(int(fd), how) })
	if err != nil {
		return c.error("shutdown", rawError(err))
	}
	return c.error("shutdown", os.NewSyscallError("shutdown", callErr))
}

// LocalAddr returns this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the peer's end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline limits reads and writes, also those that wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.error("set", c.f.SetDeadline(t)) }

// SetReadDeadline limits reads, also those that wait.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.error("set", c.f.SetReadDeadline(t)) }

// SetWriteDeadline limits writes, also those that wait.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.error("set", c.f.SetWriteDeadline(t)) }

// SyscallConn gives access to the socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.f.SyscallConn() }

// rawError is an error of a file's raw connection: a deadline has passed, or the
// file is closed, which it has a word of its own for.
func rawError(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return net.ErrClosed
}

func (c *Conn) error(op string, err error) error {
	if err == nil {
		return nil
	}
	return opError(op, c.local, c.remote, err)
}

// opError is the one way by which errors of sockets leave this package.
func opError(op string, source, addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err // the path of a socket says nothing
		if _, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(pe.Op, err)
		}
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "vsock", Source: source, Addr: addr, Err: err}
}
