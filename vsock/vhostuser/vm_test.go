package vhostuser

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/qemu/qemutest"
)

// socket is a connection with the guest, however it is made.
type socket interface {
	net.Conn
	CloseWrite() error
}

// vm is a real guest with a device.
type vm struct {
	t    *testing.T
	dev  *Device // nil with another back end
	qemu *qemu.VM
	path string // of the host socket
}

// bootVM boots a kernel with this test binary, which must be static, as /init,
// and waits until it is up.
func bootVM(t *testing.T, k *kernel.Kernel, o initramfs.Options) *vm {
	t.Helper()
	dir := t.TempDir()
	v := &vm{t: t, path: filepath.Join(dir, "v")}
	control := filepath.Join(dir, "ctl")
	var err error
	if v.dev, err = New(Options{Socket: control, HostPath: v.path, Logf: t.Logf}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.dev.Close() })
	v.boot(k, control, o)
	return v
}

// boot boots a kernel with a back end that listens on control.
func (v *vm) boot(k *kernel.Kernel, control string, o initramfs.Options) {
	v.t.Helper()
	vmlinux, err := k.Vmlinux()
	if err != nil {
		v.t.Fatal(err)
	}
	ready := make(chan string, 1)
	v.serve(portReady, func(c net.Conn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		ready <- fmt.Sprintf("%s %v", line, err)
		c.Close()
	})
	binary := qemutest.QEMU(v.t)
	version, err := qemu.ProbeVersion(v.t.Context(), binary)
	if err != nil {
		v.t.Fatal(err)
	}
	accel, err := qemu.NewAccelerator(qemu.TCG, "", version)
	if err != nil {
		v.t.Fatal(err)
	}
	link := ""
	if slices.Contains(o.Features, "serial") {
		link = "link" // a socket pair, whatever its name
	}
	v.qemu, err = qemu.Start(v.t.Context(), qemu.Config{
		Link: link, Binary: binary, Kernel: vmlinux, Initrd: v.image(k, o), Accel: accel, CPUs: 2, MemoryMiB: 512,
		Append: qemu.BaseAppend,
		Extra:  append([]string{"-machine", "memory-backend=mem0"}, Args(512, "path="+control)...),
	}, qemu.Options{})
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		// The console is complete when QEMU is gone.
		_ = v.qemu.Kill()
		if v.t.Failed() {
			v.t.Logf("%s\n%s", v.qemu.Exit().Stderr, v.qemu.ConsoleTail())
		}
	})
	select {
	case line := <-ready:
		// Its address, where it connected to, its CID.
		if !strings.HasSuffix(line, " 2:6000 3\n <nil>") {
			v.t.Errorf("the guest says %q", line)
		}
	case <-time.After(2 * time.Minute):
		v.t.Fatal("the guest is silent")
	case <-v.qemu.Done():
		v.t.Fatal("the guest is gone")
	}
}

// image builds the initramfs.
func (v *vm) image(k *kernel.Kernel, o initramfs.Options) string {
	v.t.Helper()
	self, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	var image bytes.Buffer
	o.Init, o.Kernel = self, k
	if o.Features == nil {
		o.Features = []string{"vsock"}
	}
	if _, err := initramfs.Build(&image, o); err != nil {
		v.t.Skipf("%v; run with CGO_ENABLED=0", err)
	}
	initrd := filepath.Join(v.t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, image.Bytes(), 0o600); err != nil {
		v.t.Fatal(err)
	}
	return initrd
}

func (v *vm) dial(port uint32) *Conn {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := v.dev.Dial(ctx, port)
	if err != nil {
		v.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c
}

// dialUnix connects to the guest as other programs do.
func (v *vm) dialUnix(port uint32) *net.UnixConn {
	v.t.Helper()
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: v.path, Net: "unix"})
	if err != nil {
		v.t.Fatal(err)
	}
	_ = u.SetDeadline(time.Now().Add(2 * time.Minute))
	fmt.Fprintf(u, "CONNECT %d\n", port)
	b := make([]byte, 1)
	for line := ""; !strings.HasSuffix(line, "\n"); line += string(b) {
		if _, err := io.ReadFull(u, b); err != nil {
			v.t.Fatal(err)
		}
	}
	return u
}

// serve takes connections of the guest: in this process, or through a Unix
// socket where there is no device in it.
func (v *vm) serve(port uint32, f func(net.Conn)) {
	v.t.Helper()
	var l net.Listener
	var err error
	if v.dev != nil {
		l, err = v.dev.Listen(port)
	} else {
		l, err = net.Listen("unix", fmt.Sprintf("%s_%d", v.path, port))
	}
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
}

// hash is the answer to so many bytes of a seed.
func hash(seed, total uint64) string {
	h := sha256.New()
	_, _ = io.Copy(h, testBytes(seed, total))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// hashBack is the host's side of portBack.
func hashBack(c net.Conn) {
	h := sha256.New()
	_, _ = io.CopyBuffer(h, c, make([]byte, 256<<10))
	_, _ = c.Write(h.Sum(nil))
	c.Close()
}

// toGuest sends bytes and checks the hash that comes back after a half-close.
func (v *vm) toGuest(c halfCloser, seed, total, size uint64) {
	v.t.Helper()
	defer c.Close()
	if err := pump(c, testBytes(seed, total), size); err != nil {
		v.t.Error(err)
		return
	}
	if err := c.CloseWrite(); err != nil {
		v.t.Error(err)
	}
	if got, err := io.ReadAll(c); err != nil || fmt.Sprintf("%x", got) != hash(seed, total) {
		v.t.Errorf("%d bytes in writes of %d to the guest: hash %x: %v", total, size, got, err)
	}
}

// fromGuest has the guest connect and send.
func (v *vm) fromGuest(seed, total, size uint64) {
	v.t.Helper()
	c := v.dial(portDial)
	defer c.Close()
	if err := binary.Write(c, binary.LittleEndian, order{total, size, seed}); err != nil {
		v.t.Error(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != hash(seed, total)+" <nil>" {
		v.t.Errorf("%d bytes in writes of %d from the guest: %s: %v", total, size, got, err)
	}
}

// testKernels are the kernels in the cache, one of each line; $VSOCK_KERNEL
// picks those whose release has it as a prefix.
func testKernels(t *testing.T) (picked []*kernel.Kernel) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots guests; run without -short")
	}
	list, err := kernel.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if strings.HasPrefix(k.Release, os.Getenv("VSOCK_KERNEL")) {
			picked = append(picked, k)
		}
	}
	if len(picked) == 0 {
		t.Skip("no kernel in the cache; try: guestinit kernel fetch")
	}
	return picked
}

func TestGuests(t *testing.T) {
	for _, k := range testKernels(t) {
		t.Run(k.Release, func(t *testing.T) {
			var o initramfs.Options
			socat, noSocat := exec.LookPath("socat")
			if noSocat == nil {
				o.Files = []initramfs.File{{Src: socat, Dst: "/usr/bin/socat"}}
			}
			v := bootVM(t, k, o)
			v.serve(portBack, hashBack)
			v.sizes()
			v.bulk()
			v.concurrent()
			v.endings()
			v.conforms()
			v.hostSockets()
			t.Run("socat", func(t *testing.T) {
				if noSocat != nil {
					t.Skipf("%v; try: apt install socat", noSocat)
				}
				v.socat(socat)
			})
			v.off()
		})
	}
}

// sizes sends in writes around all the limits of buffers, both ways.
func (v *vm) sizes() {
	for i, size := range []uint64{1, 44, 3776, 4096, 28 << 10, 32 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 256 << 10, 1<<20 - 3, 1 << 20} {
		total := min(size*5+3, 3<<20)
		v.toGuest(v.dial(portSink), uint64(i), total, size)
		v.fromGuest(uint64(i), total, size)
	}
}

// bulk moves 64 MiB each way.
func (v *vm) bulk() {
	at := time.Now()
	v.toGuest(v.dial(portSink), 1, 64<<20, 1<<20)
	v.t.Logf("64 MiB to the guest, hashed: %v", time.Since(at))
	at = time.Now()
	v.fromGuest(2, 64<<20, 1<<20)
	v.t.Logf("64 MiB from the guest, hashed: %v", time.Since(at))
}

// concurrent has 64 connections at once, of both directions.
func (v *vm) concurrent() {
	var all sync.WaitGroup
	for i := range uint64(32) {
		all.Go(func() { v.toGuest(v.dial(portSink), i, 300_000+i, 10_000+i) })
		all.Go(func() { v.fromGuest(i, 300_000+i, 10_000+i) })
	}
	all.Wait()
}

// endings ends connections in the middle.
func (v *vm) endings() {
	// The guest's program closes while the host writes.
	c := v.dial(portShort)
	if _, err := c.Write(make([]byte, 4<<20)); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		v.t.Errorf("write to a guest that closes: %v", err)
	}
	c.Close()
	// The guest never reads: deadlines and resets work, others go on.
	var hung []*Conn
	for range 8 {
		c := v.dial(portHang)
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			v.t.Errorf("write to a guest that does not read: %v", err)
		}
		hung = append(hung, c)
	}
	v.toGuest(v.dial(portSink), 3, 1<<20, 1<<16)
	for _, c := range hung {
		_ = c.Reset()
	}
	// The host resets and closes while the guest writes.
	for _, end := range []func(*Conn) error{(*Conn).Reset, (*Conn).Close} {
		c := v.dial(portSource)
		if err := binary.Write(c, binary.LittleEndian, order{64 << 20, 1 << 20, 1}); err != nil {
			v.t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
			v.t.Error(err)
		}
		_ = end(c)
	}
	if _, err := v.dev.Dial(v.t.Context(), 4999); !errors.Is(err, syscall.ECONNREFUSED) {
		v.t.Errorf("dial a port without a listener: %v", err)
	}
}

// hostSockets goes through the Unix sockets, both ways.
func (v *vm) hostSockets() {
	u := v.dialUnix(portSink)
	v.toGuest(u, 4, 8<<20, 1<<16)
}

// socat has the program socat at both ends, in both directions: one sends and
// half-closes, the other echoes.
func (v *vm) socat(program string) {
	want := fmt.Sprintf("%x", noise(100_000))
	run := func(input string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.Output()
		return string(out), err
	}
	guest := func(args string) <-chan string {
		done := make(chan string, 1)
		c := v.dial(portSocat)
		fmt.Fprintf(c, "-t 20 %s\n", args)
		go func() {
			defer c.Close()
			b, err := io.ReadAll(c)
			done <- fmt.Sprint(string(b), err)
		}()
		return done
	}
	// The guest listens; until socat there has begun, clients are refused.
	end := guest("VSOCK-LISTEN:5100 PIPE")
	var got string
	var err error
	for began := time.Now(); got == "" && time.Since(began) < 20*time.Second; {
		got, err = run("CONNECT 5100\n"+want, "-t", "20", "-", "UNIX-CONNECT:"+v.path)
	}
	if _, got, _ = strings.Cut(got, "\n"); got != want || err != nil {
		v.t.Errorf("socat in the guest echoes %d bytes of %d: %v", len(got), len(want), err)
	}
	if said := <-end; said != "<nil><nil>" {
		v.t.Errorf("socat in the guest: %s", said)
	}
	// The guest connects.
	path := v.path + "_7000"
	answer := make(chan string, 1)
	go func() {
		out, err := run(want, "-t", "20", "-", "UNIX-LISTEN:"+path)
		if err != nil {
			v.t.Errorf("socat on the host: %v", err)
		}
		answer <- out
	}()
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			break
		}
	}
	end = guest("VSOCK-CONNECT:2:7000 PIPE")
	if got := <-answer; got != want {
		v.t.Errorf("socat on the host gets %d bytes of %d", len(got), len(want))
	}
	if said := <-end; said != "<nil><nil>" {
		v.t.Errorf("socat in the guest: %s", said)
	}
}

// off powers the guest off and sees the device end.
func (v *vm) off() {
	settled := v.dev.Stats()
	if settled.Dropped != 0 {
		v.t.Errorf("dropped packets: %+v", settled)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The guest may be gone before its answer was looked at.
	if c, err := v.dev.Dial(ctx, portOff); err == nil {
		defer c.Close()
	} else if !errors.Is(err, ErrGone) {
		v.t.Fatal(err)
	}
	select {
	case <-v.dev.Done():
		if !errors.Is(v.dev.Err(), ErrGone) {
			v.t.Error(v.dev.Err())
		}
	case <-time.After(time.Minute):
		v.t.Error("the device outlives QEMU")
	}
}
