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

// vm is a real guest with a device.
type vm struct {
	t    *testing.T
	dev  *Device
	qemu *qemu.VM
	path string // of the host socket
}

// bootVM boots a kernel with this test binary, which must be static, as /init,
// and waits until it is up.
func bootVM(t *testing.T, k *kernel.Kernel) *vm {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	o := initramfs.Options{Init: self, Kernel: k, Features: []string{"vsock"}}
	if _, err := initramfs.Build(&image, o); err != nil {
		t.Skipf("%v; run with CGO_ENABLED=0", err)
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, image.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux()
	if err != nil {
		t.Fatal(err)
	}
	v := &vm{t: t, path: filepath.Join(dir, "v")}
	control := filepath.Join(dir, "ctl")
	if v.dev, err = New(Options{Socket: control, HostPath: v.path, Logf: t.Logf}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.dev.Close() })
	ready, err := v.dev.Listen(portReady)
	if err != nil {
		t.Fatal(err)
	}
	binary := qemutest.QEMU(t)
	version, err := qemu.ProbeVersion(t.Context(), binary)
	if err != nil {
		t.Fatal(err)
	}
	accel, err := qemu.NewAccelerator(qemu.TCG, "", version)
	if err != nil {
		t.Fatal(err)
	}
	v.qemu, err = qemu.Start(t.Context(), qemu.Config{
		Binary: binary, Kernel: vmlinux, Initrd: initrd, Accel: accel, CPUs: 2, MemoryMiB: 512,
		Append: "console=ttyS0 quiet panic=-1 cryptomgr.notests=1 tsc=reliable",
		Extra:  append([]string{"-machine", "memory-backend=mem0"}, Args(512, "path="+control)...),
	}, qemu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.qemu.Kill()
		if t.Failed() {
			t.Logf("%s\n%s", v.qemu.Exit().Stderr, v.qemu.ConsoleTail())
		}
	})
	_ = ready.(*Listener).SetDeadline(time.Now().Add(2 * time.Minute))
	c, err := ready.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if remote := c.RemoteAddr().String(); err != nil || line != fmt.Sprintf("%s 2:6000 3\n", strings.Replace(remote, "3:", "4294967295:", 1)) && line != remote+" 2:6000 3\n" {
		t.Errorf("guest at %s says %q: %v", remote, line, err)
	}
	return v
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

func serveTest(t *testing.T, d *Device, port uint32, f func(net.Conn)) {
	t.Helper()
	l, err := d.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
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
			v := bootVM(t, k)
			serveTest(t, v.dev, portBack, hashBack)
			serveTest(t, v.dev, portPong, func(c net.Conn) {
				_, _ = io.Copy(c, c)
				c.Close()
			})
			serveTest(t, v.dev, portEmpty, drain)
			v.sizes()
			v.bulk()
			v.concurrent()
			v.endings()
			v.hostSockets()
			v.bench()
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
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: v.path, Net: "unix"})
	if err != nil {
		v.t.Fatal(err)
	}
	fmt.Fprintf(u, "CONNECT %d\n", portSink)
	b := make([]byte, 1)
	for line := ""; !strings.HasSuffix(line, "\n"); line += string(b) {
		if _, err := io.ReadFull(u, b); err != nil {
			v.t.Fatal(err)
		}
	}
	v.toGuest(u, 4, 8<<20, 1<<16)
}

// bench measures, for the log.
func (v *vm) bench() {
	c := v.dial(portBench)
	defer c.Close()
	b, err := io.ReadAll(c)
	v.t.Logf("from the guest: %s %v", b, err)
	const rounds = 300
	var trips, connects []time.Duration
	for range rounds {
		at := time.Now()
		c := v.dial(portEcho)
		connects = append(connects, time.Since(at))
		// The guest's backlog is bounded too: wait until it was accepted.
		b := []byte{1}
		_, _ = c.Write(b)
		if _, err := io.ReadFull(c, b); err != nil {
			v.t.Error(err)
		}
		c.Close()
	}
	e := v.dial(portEcho)
	defer e.Close()
	for b := []byte{1}; len(trips) < rounds; {
		at := time.Now()
		_, _ = e.Write(b)
		if _, err := io.ReadFull(e, b); err != nil {
			v.t.Error(err)
			return
		}
		trips = append(trips, time.Since(at))
	}
	slices.Sort(trips)
	slices.Sort(connects)
	var speed []string
	for _, size := range []int{28 << 10, 1 << 20} {
		c := v.dial(portDrain)
		at := time.Now()
		if err := bulk(c, size); err != nil {
			v.t.Error(err)
		}
		c.Close()
		speed = append(speed, fmt.Sprintf("%d KiB writes %.0f MiB/s", size>>10, 64/time.Since(at).Seconds()))
	}
	v.t.Logf("from the host: connect %v round trip %v host to guest %s", connects[rounds/2], trips[rounds/2], strings.Join(speed, ", "))
}

// off powers the guest off and sees the device end.
func (v *vm) off() {
	settled := v.dev.Stats()
	if settled.Dropped != 0 {
		v.t.Errorf("dropped packets: %+v", settled)
	}
	v.dial(portOff)
	select {
	case <-v.dev.Done():
		if !errors.Is(v.dev.Err(), ErrGone) {
			v.t.Error(v.dev.Err())
		}
	case <-time.After(time.Minute):
		v.t.Error("the device outlives QEMU")
	}
}
