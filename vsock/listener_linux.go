package vsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many connections wait to be accepted; the kernel takes no
// more than 128 on a vsock unless it was told to.
const backlog = 128

// anyPort asks the kernel for a port (VMADDR_PORT_ANY).
const anyPort = 0xffff_ffff

// Listener takes AF_VSOCK connections.
type Listener struct {
	f    *os.File
	addr Addr
}

var _ net.Listener = (*Listener)(nil)

// Listen takes connections to port of cid, which is one of the machine's or
// CIDAny. Port 0 picks one.
func Listen(cid, port uint32) (*Listener, error) {
	addr := Addr{cid, port}
	f, err := newSocket()
	if err != nil {
		return nil, opError("listen", nil, addr, err)
	}
	if port == 0 {
		port = anyPort
	}
	raw, err := f.SyscallConn()
	if err == nil {
		var callErr error
		err = raw.Control(func(fd uintptr) {
			callErr = os.NewSyscallError("bind", unix.Bind(int(fd), &unix.SockaddrVM{CID: cid, Port: port}))
			if callErr == nil {
				callErr = os.NewSyscallError("listen", unix.Listen(int(fd), backlog))
			}
			addr = sockname(int(fd))
		})
		err = errors.Join(err, callErr)
	}
	if err != nil {
		f.Close()
		return nil, opError("listen", nil, Addr{cid, port}, err)
	}
	return &Listener{f: f, addr: addr}, nil
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.accept()
	if err != nil {
		return nil, opError("accept", nil, l.addr, err)
	}
	return c, nil
}

func (l *Listener) accept() (*Conn, error) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var from unix.Sockaddr
	var callErr error
	err = raw.Read(func(s uintptr) (done bool) {
		fd, from, callErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		for errors.Is(callErr, unix.EINTR) || errors.Is(callErr, unix.ECONNABORTED) {
			fd, from, callErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		}
		return !errors.Is(callErr, unix.EAGAIN)
	})
	if err == nil {
		err = os.NewSyscallError("accept4", callErr)
	}
	if err != nil {
		return nil, err
	}
	var remote Addr
	if vm, ok := from.(*unix.SockaddrVM); ok {
		remote = Addr{vm.CID, vm.Port}
	}
	return newConn(os.NewFile(uintptr(fd), "vsock"), remote), nil
}

// Close stops listening. Connections that were accepted live on.
func (l *Listener) Close() error { return opError("close", nil, l.addr, l.f.Close()) }

// Addr returns where the listener is, with the port that was picked.
func (l *Listener) Addr() net.Addr { return l.addr }

// SetDeadline limits Accept, also one that waits.
func (l *Listener) SetDeadline(t time.Time) error {
	return opError("set", nil, l.addr, l.f.SetDeadline(t))
}

// LocalCID returns the CID of this machine, which a guest has from its host.
func LocalCID() (uint32, error) {
	f, err := os.Open("/dev/vsock")
	if err != nil {
		return 0, fmt.Errorf("local CID: %w", err)
	}
	defer f.Close()
	cid, err := unix.IoctlGetUint32(int(f.Fd()), unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	if err != nil {
		return 0, fmt.Errorf("local CID: ioctl /dev/vsock: %w", err)
	}
	return cid, nil
}
