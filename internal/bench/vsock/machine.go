package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/vsock/vhostuser"
)

// guestTimeout bounds a guest from boot to power-off.
const guestTimeout = 10 * time.Minute

// backEnd is what joins the guest with the host.
type backEnd struct {
	dev    *vhostuser.Device // nil where a process of its own is the device
	daemon *exec.Cmd
	path   string // of the Unix sockets for other programs
	ctl    string // of QEMU's socket
}

// newBackEnd makes our device, in this process or in one of its own, or starts
// the daemon.
func newBackEnd(dir, way, daemon string) (*backEnd, error) {
	b := &backEnd{path: filepath.Join(dir, "v"), ctl: filepath.Join(dir, "ctl")}
	program := daemon
	var err error
	switch way {
	case wayDaemon:
	case waySockets:
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	default:
		b.dev, err = vhostuser.New(vhostuser.Options{Socket: b.ctl, HostPath: b.path})
		return b, err
	}
	b.daemon = exec.Command(program, "--guest-cid=3", "--socket="+b.ctl, "--uds-path="+b.path)
	var said bytes.Buffer
	b.daemon.Stderr = &said
	if err := b.daemon.Start(); err != nil {
		return nil, err
	}
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); wait(10 * time.Millisecond) {
		if _, err := os.Stat(b.ctl); err == nil {
			return b, nil
		}
	}
	b.close()
	return nil, fmt.Errorf("%s does not listen: %s", program, said.String())
}

// serveDevice is the life of the program as a device: it takes the arguments of
// vhost-device-vsock.
func serveDevice(ctl, path string, cid uint32) error {
	dev, err := vhostuser.New(vhostuser.Options{Socket: ctl, HostPath: path, GuestCID: cid})
	if err != nil {
		return err
	}
	<-dev.Done()
	return nil
}

func wait(d time.Duration) { <-time.After(d) }

func (b *backEnd) close() {
	if b.dev != nil {
		b.dev.Close()
		return
	}
	_ = b.daemon.Process.Kill() // it fails only where the program is gone
	_ = b.daemon.Wait()
}

// machine is a guest that takes orders.
type machine struct {
	dir     string
	vm      *qemu.VM
	link    net.Conn // the host's end of the virtio-serial port
	back    *backEnd
	sockets bool // through Unix sockets, as other programs; else in this process
	control net.Conn
	in      *json.Decoder
	opened  []net.Listener
}

// boot starts a guest of kernel k and waits for it.
func boot(ctx context.Context, k *kernel.Kernel, way, daemon string) (*machine, error) {
	dir, err := os.MkdirTemp("", "bench-vsock")
	if err != nil {
		return nil, err
	}
	m := &machine{dir: dir, sockets: way == waySockets || way == wayDaemon}
	if err := m.boot(ctx, k, way, daemon); err != nil {
		m.end()
		return nil, err
	}
	return m, nil
}

func (m *machine) boot(ctx context.Context, k *kernel.Kernel, way, daemon string) (err error) {
	if m.back, err = newBackEnd(m.dir, way, daemon); err != nil {
		return err
	}
	c, err := config(ctx, k, m.back.ctl)
	if err != nil {
		return err
	}
	image, err := imageFile(m.dir, k)
	if err != nil {
		return err
	}
	defer image.Close()
	for port, serve := range map[uint32]func(net.Conn){hostEcho: echo, hostDrain: drain} {
		l, err := m.listen(port)
		if err != nil {
			return err
		}
		go accept(l, serve)
	}
	control, err := m.listen(hostControl)
	if err != nil {
		return err
	}
	if m.vm, err = qemu.Start(ctx, c, qemu.Options{Initrd: image}); err != nil {
		return err
	}
	m.link = m.vm.Link()
	if m.control, err = acceptOne(control, m.vm); err != nil {
		return err
	}
	for _, c := range []net.Conn{m.control, m.link} {
		_ = c.SetDeadline(time.Now().Add(guestTimeout)) // all kinds have deadlines
	}
	m.in = json.NewDecoder(m.control)
	return nil
}

func config(ctx context.Context, k *kernel.Kernel, ctl string) (c qemu.Config, err error) {
	c = qemu.Config{
		Append: qemu.BaseAppend,
		Link:   "link", Vsock: ctl,
	}
	if c.Kernel, err = k.Vmlinux(); err != nil {
		return c, err
	}
	version, err := qemu.ProbeVersion(ctx, qemu.DefaultBinary)
	if err != nil {
		return c, err
	}
	c.Accel, err = qemu.NewAccelerator(qemu.TCG, "", version)
	return c, err
}

// imageFile is an initramfs with this program as /init.
func imageFile(dir string, k *kernel.Kernel) (*os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "image")
	if err != nil {
		return nil, err
	}
	if _, err := initramfs.Build(f, initramfs.Options{Init: self, Kernel: k}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w; build with CGO_ENABLED=0", err)
	}
	return f, nil
}

// acceptOne waits for the guest.
func acceptOne(l net.Listener, vm *qemu.VM) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		got <- result{c, err}
	}()
	select {
	case r := <-got:
		return r.c, r.err
	case <-vm.Done():
		return nil, fmt.Errorf("the guest is gone: %s\n%s", vm.Exit().Stderr, vm.ConsoleTail())
	case <-time.After(guestTimeout):
		return nil, fmt.Errorf("the guest is silent\n%s", vm.ConsoleTail())
	}
}

// listen takes connections of the guest.
func (m *machine) listen(port uint32) (l net.Listener, err error) {
	if m.sockets {
		l, err = net.Listen("unix", fmt.Sprintf("%s_%d", m.back.path, port))
	} else {
		l, err = m.back.dev.Listen(port)
	}
	if err == nil {
		m.opened = append(m.opened, l)
	}
	return l, err
}

// dial connects to the guest.
func (m *machine) dial(port uint32) (net.Conn, error) {
	if !m.sockets {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return m.back.dev.Dial(ctx, port)
	}
	c, err := net.Dial("unix", m.back.path)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "CONNECT %d\n", port)
	var line strings.Builder
	for b := []byte{0}; b[0] != '\n'; line.Write(b) {
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, fmt.Errorf("connect to guest port %d: %w", port, err)
		}
	}
	if !strings.HasPrefix(line.String(), "OK ") {
		return nil, fmt.Errorf("connect to guest port %d: %q", port, line.String())
	}
	return c, nil
}

// tell has the guest do something.
func (m *machine) tell(o order) (a answer, err error) {
	if err = m.start(o); err == nil {
		a, err = m.answer()
	}
	return a, err
}

func (m *machine) start(o order) error { return json.NewEncoder(m.control).Encode(o) }

func (m *machine) answer() (a answer, err error) {
	if err := m.in.Decode(&a); err != nil {
		return a, fmt.Errorf("ask the guest: %w\n%s", err, m.vm.ConsoleTail())
	}
	if a.Err != "" {
		err = errors.New("the guest says: " + a.Err)
	}
	return a, err
}

// end powers the guest off, by force if need be, and gives everything back.
func (m *machine) end() {
	defer os.RemoveAll(m.dir)
	if m.in != nil {
		_ = m.start(order{Do: "off"})
		select {
		case <-m.vm.Done():
		case <-time.After(10 * time.Second):
		}
	}
	if m.vm != nil {
		m.link.Close()
		_ = m.vm.Kill()
	}
	for _, l := range m.opened {
		l.Close()
	}
	if m.back != nil {
		m.back.close()
	}
}
