package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/vsock"
	"github.com/guestinit/guestinit/vsock/vhostuser"
)

// userLink is our vsock device: a back end in this process on a socket pair.
type userLink struct{}

func (userLink) name() string { return linkUser }
func (userLink) word() string { return cmdline.LinkVsock }

func (userLink) show(c *qemu.Config, dir string) {
	c.Vsock = filepath.Join(dir, keepVsock)
}

func (userLink) open(r *runner, c *qemu.Config) (*linkEnd, error) {
	d, err := newUserDevice(r, c)
	if err != nil {
		return nil, err
	}
	return &linkEnd{file: d.theirs, close: d.close, accept: func(ctx context.Context, vm *qemu.VM) (net.Conn, string, error) {
		conn, err := d.accept(ctx, vm)
		return conn, linkUser, err
	}}, nil
}

// userDevice is one boot's device.
type userDevice struct {
	dev      *vhostuser.Device
	listener net.Listener
	theirs   *os.File // QEMU's end
}

func newUserDevice(r *runner, c *qemu.Config) (*userDevice, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair for vsock: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "vsock"), os.NewFile(uintptr(fds[1]), "vsock")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("make socket pair for vsock: %w", err)
	}
	dev, err := vhostuser.New(vhostuser.Options{Conn: conn.(*net.UnixConn), Buffer: linkBuffer, Logf: r.logf})
	if err != nil {
		conn.Close()
		theirs.Close()
		return nil, err
	}
	d := &userDevice{dev: dev, theirs: theirs}
	if d.listener, err = dev.Listen(vsock.Port); err != nil {
		d.close()
		theirs.Close()
		return nil, err
	}
	c.Vsock = keepVsock
	return d, nil
}

// linkBuffer is how far, in bytes, the guest may be ahead of the host.
const linkBuffer = 1 << 20

func (d *userDevice) accept(ctx context.Context, vm *qemu.VM) (net.Conn, error) {
	defer context.AfterFunc(ctx, func() { d.listener.Close() })()
	conn, err := d.listener.Accept()
	if err != nil {
		return nil, noGuest(ctx, vm, err)
	}
	return conn, nil
}

func (d *userDevice) close() { d.dev.Close() }

// logf keeps what a device has to say, for the report.
func (r *runner) logf(format string, args ...any) {
	r.logging.Lock()
	defer r.logging.Unlock()
	if len(r.logged) < 20 {
		r.logged = append(r.logged, oneLine(fmt.Sprintf(format, args...)))
	}
}

// noGuest is the error of a wait for the guest: what ended it, if that was not
// the guest's doing.
func noGuest(ctx context.Context, vm *qemu.VM, err error) error {
	select {
	case <-vm.Done():
		return vsock.ErrNoBye
	default:
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, vhostuser.ErrGone):
		return vsock.ErrNoBye
	}
	return fmt.Errorf("wait for the guest: %w", err)
}

// closeAtEnd closes c when QEMU is gone, unless stop was called before.
func closeAtEnd(vm *qemu.VM, c io.Closer) (stop func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-vm.Done():
			c.Close()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// eitherLink is for a kernel of which nobody knows what drivers it has: the
// machine has both devices and the guest takes the one that works.
type eitherLink struct{}

func (eitherLink) name() string { return linkEither }
func (eitherLink) word() string { return cmdline.LinkAuto }

func (eitherLink) show(c *qemu.Config, dir string) {
	userLink{}.show(c, dir)
	serialLink{}.show(c, dir)
}

func (eitherLink) open(r *runner, c *qemu.Config) (*linkEnd, error) {
	d, err := newUserDevice(r, c)
	if err != nil {
		return nil, err
	}
	c.Link = keepLink
	return &linkEnd{file: d.theirs, close: d.close, accept: d.either}, nil
}

// came is a stream on which the guest has spoken.
type came struct {
	conn net.Conn
	name string
	err  error
}

// either waits until the guest speaks on one of the links.
func (d *userDevice) either(ctx context.Context, vm *qemu.VM) (net.Conn, string, error) {
	first := make(chan came, 2)
	serial := vm.Link()
	go func() {
		conn, err := d.accept(ctx, vm)
		first <- came{conn, linkUser, err}
	}()
	go func() {
		b := make([]byte, 1)
		_, err := io.ReadFull(serial, b)
		if err != nil {
			err = noGuest(ctx, vm, err)
		}
		first <- came{&prefixed{serial, bytes.NewReader(b)}, linkSerial, err}
	}()
	stop := context.AfterFunc(ctx, func() { serial.Close() })
	defer stop()
	c := <-first
	switch {
	case c.err != nil: // QEMU is gone, or ctx is over: so for the other
		serial.Close()
		d.listener.Close()
		<-first
		return nil, "", c.err
	case c.name == linkUser:
		serial.Close()
	default:
		d.listener.Close()
	}
	if other := <-first; other.err == nil {
		other.conn.Close()
	}
	return c.conn, c.name, nil
}

// prefixed is a connection of which something was read already.
type prefixed struct {
	net.Conn
	read *bytes.Reader
}

// Read is net.Conn's.
func (p *prefixed) Read(b []byte) (int, error) {
	if p.read.Len() > 0 {
		return p.read.Read(b)
	}
	return p.Conn.Read(b)
}
