package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Options says what device to make. Socket or Conn is required.
type Options struct {
	// Socket is the path of the Unix socket that QEMU connects to, once. It
	// must not exist, and is gone when QEMU has connected.
	Socket string
	// Conn, if set, is a connection that QEMU has the other end of, from a
	// socket pair (-chardev socket,fd=N), in place of Socket. The device
	// closes it.
	Conn *net.UnixConn
	// HostPath, if set, is the path of a Unix socket on which other programs
	// reach the guest: they say "CONNECT <port>\n", read "OK <port>\n", and
	// are connected. Connections of the guest to a port without a Listener go
	// to the Unix socket HostPath_<port>.
	HostPath string
	// GuestCID is the guest's CID, 3 to 4,294,967,294; default 3. It need not
	// be unique on the machine.
	GuestCID uint32
	// Buffer is how many bytes the guest may send on a connection before
	// somebody reads them, 4 KiB to 64 MiB; default 256 KiB. It is taken
	// when needed.
	Buffer int
	// Connections is how many may be open, 1 to 65,536; default 1024.
	Connections int
	// Backlog is how many wait to be accepted on a port; default 128.
	Backlog int
	// Logf, if set, hears what goes wrong with the guest or QEMU.
	Logf func(format string, args ...any)
}

const (
	defaultCID         = 3
	defaultBuffer      = 256 << 10
	defaultConnections = 1024
	defaultBacklog     = 128
)

// check fills in the defaults and refuses what is out of range.
func (o *Options) check() error {
	number := func(v *int, name string, byDefault, low, high int) error {
		if *v == 0 {
			*v = byDefault
		}
		if *v < low || *v > high {
			return fmt.Errorf("vsock device: %s: %d is outside %d to %d", name, *v, low, high)
		}
		return nil
	}
	if o.GuestCID == 0 {
		o.GuestCID = defaultCID
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	var err error
	switch {
	case (o.Socket == "") == (o.Conn == nil):
		err = errors.New("vsock device: give Socket or Conn, one of them")
	case o.GuestCID <= hostCID || o.GuestCID == ^uint32(0):
		err = fmt.Errorf("vsock device: guest CID %d is reserved; 3 is a good one", o.GuestCID)
	}
	return errors.Join(err,
		number(&o.Buffer, "buffer", defaultBuffer, 4<<10, 64<<20),
		number(&o.Connections, "connections", defaultConnections, 1, 1<<16),
		number(&o.Backlog, "backlog", defaultBacklog, 1, 1<<16))
}

// Device is a virtio-vsock device for one guest.
type Device struct {
	m        *mux
	opts     Options
	listener *net.UnixListener
	host     *host // nil without HostPath
	done     chan struct{}
	running  sync.WaitGroup

	mu   sync.Mutex
	conn *net.UnixConn
	err  error
}

// New makes a device and waits for QEMU in the background. Connections may be
// asked for at once; they are made when the guest's driver is up.
func New(o Options) (*Device, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	d := &Device{opts: o, conn: o.Conn, done: make(chan struct{})}
	d.m = &mux{
		cid: uint64(o.GuestCID), limit: o.Connections, bufAlloc: uint32(o.Buffer), logf: o.Logf,
		conns: make(map[key]*Conn), listeners: make(map[uint32]*Listener),
	}
	if o.HostPath != "" {
		h, err := newHost(d.m, o.HostPath)
		if err != nil {
			return nil, err
		}
		d.host = h
	}
	if o.Conn == nil {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: o.Socket, Net: "unix"})
		if err != nil {
			d.host.close()
			return nil, fmt.Errorf("vsock device: listen for QEMU: %w", err)
		}
		d.listener = l
	}
	if d.host != nil {
		d.m.offer = d.host.offer
		d.running.Go(d.host.serve)
	}
	d.running.Go(d.run)
	return d, nil
}

// run waits for QEMU and serves it.
func (d *Device) run() {
	err := d.accept()
	if err == nil {
		s := session{conn: d.conn, m: d.m}
		err = s.run()
	}
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
		err = ErrGone
	default:
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	d.end(err)
}

// accept takes one connection of QEMU and refuses all others.
func (d *Device) accept() error {
	if d.listener == nil {
		return nil
	}
	defer d.listener.Close()
	conn, err := d.listener.AcceptUnix()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		conn.Close()
		return d.err
	}
	d.conn = conn
	return nil
}

// end ends the device for the reason err, if it has not ended yet.
func (d *Device) end(err error) {
	d.mu.Lock()
	first := d.err == nil
	if first {
		d.err = err
	}
	conn := d.conn
	d.mu.Unlock()
	if !first {
		return
	}
	d.m.shut(err)
	d.host.close()
	if d.listener != nil {
		d.listener.Close()
	}
	if conn != nil {
		conn.Close()
	}
	close(d.done)
}

// Close ends the device and every connection and listener of it, and waits
// until the guest's memory is given back. QEMU lives on; for the guest the
// device is dead. It may be called again.
func (d *Device) Close() error {
	d.end(ErrClosed)
	d.running.Wait()
	return nil
}

// Done is closed when the device has ended: it was closed, or QEMU is gone.
func (d *Device) Done() <-chan struct{} { return d.done }

// Err says why the device ended, ErrClosed or ErrGone, perhaps with more; nil
// while it has not.
func (d *Device) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Stats returns what the device did so far.
func (d *Device) Stats() Stats {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	s := d.m.stats
	s.Connections = d.m.live
	return s
}

// Listen takes the connections that the guest makes to port of CID 2; 0 picks
// a port.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	l, err := d.m.listen(port, d.opts.Backlog)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Dial connects to a port of the guest. It waits for the guest's driver as long
// as ctx lasts; when the driver is up and no program listens, the error
// matches syscall.ECONNREFUSED.
func (d *Device) Dial(ctx context.Context, port uint32) (*Conn, error) {
	return d.m.dial(ctx, port)
}

// Args returns QEMU's arguments for the device with memory of so many MiB. The
// machine must be given memory-backend=mem0. chardev is what follows
// "socket,id=vsock0," such as "path=FILE" or "fd=3".
func Args(memoryMiB int, chardev string) []string {
	return []string{
		"-object", fmt.Sprintf("memory-backend-memfd,id=mem0,size=%dM,share=on", memoryMiB),
		"-chardev", "socket,id=vsock0," + chardev,
		"-device", "vhost-user-vsock-pci,chardev=vsock0",
	}
}
