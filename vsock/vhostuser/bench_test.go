package vhostuser

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/guestinit/guestinit/initramfs"
)

// TestThroughput measures, in real guests, connects, round trips and bulk both
// ways, for the log: within this process, through the Unix sockets, and with
// the program that $VHOST_DEVICE_VSOCK names in place of the device. It judges
// nothing: numbers depend on the machine.
func TestThroughput(t *testing.T) {
	if os.Getenv("VSOCK_BENCH") == "" {
		t.Skip("set VSOCK_BENCH=1 to measure")
	}
	for _, k := range testKernels(t) {
		t.Run(k.Release, func(t *testing.T) {
			v := bootVM(t, k, initramfs.Options{Features: []string{"serial", "vsock"}})
			v.servePorts()
			v.measureSerial(28 << 10)
			for _, size := range []int{28 << 10, 1 << 20} {
				v.measure("in process", size, func(port uint32) socket { return v.dial(port) })
			}
			v.off()

			v = bootVM(t, k, initramfs.Options{})
			l := v.dev
			v.dev = nil // through the sockets
			v.servePorts()
			for _, size := range []int{28 << 10, 1 << 20} {
				v.measure("Unix sockets", size, func(port uint32) socket { return v.dialUnix(port) })
			}
			v.dev = l
			v.off()

			if daemon := os.Getenv("VHOST_DEVICE_VSOCK"); daemon != "" {
				v = &vm{t: t}
				control := v.startDaemon(daemon)
				v.boot(k, control, initramfs.Options{})
				v.servePorts()
				// It stalls for good from writes of 32 KiB on.
				v.measure("vhost-device-vsock", 28<<10, func(port uint32) socket { return v.dialUnix(port) })
			}
		})
	}
}

// servePorts serves what the guest connects to.
func (v *vm) servePorts() {
	v.serve(portPong, func(c net.Conn) {
		_, _ = io.Copy(c, c)
		c.Close()
	})
	v.serve(portEmpty, drain)
}

// measure logs one line for each direction.
func (v *vm) measure(name string, size int, dial func(port uint32) socket) {
	v.t.Helper()
	c := dial(portBench)
	defer c.Close()
	if err := binary.Write(c, binary.LittleEndian, uint64(size)); err != nil {
		v.t.Error(err)
	}
	b, err := io.ReadAll(c)
	v.t.Logf("%s, %d KiB writes, from the guest: %s, %v", name, size>>10, b, err)
	connect, trip, err := measure(func() (socket, error) { return dial(portEcho), nil })
	if err != nil {
		v.t.Error(err)
	}
	d := dial(portDrain)
	defer d.Close()
	at := time.Now()
	if err := bulk(d, size); err != nil {
		v.t.Error(err)
	}
	v.t.Logf("%s, %d KiB writes, to the guest: connect %v, round trip %v, %.0f MiB/s", name, size>>10, connect, trip, 64/time.Since(at).Seconds())
}

// measureSerial measures what there is without vsock.
func (v *vm) measureSerial(size int) {
	v.t.Helper()
	link := v.qemu.Link()
	defer link.Close()
	_ = link.SetDeadline(time.Now().Add(20 * time.Second))
	c := v.dial(portSerial)
	defer c.Close()
	if err := binary.Write(c, binary.LittleEndian, uint64(size)); err != nil {
		v.t.Error(err)
	}
	at := time.Now()
	if _, err := io.CopyN(io.Discard, link, bulkBytes); err != nil {
		b, _ := io.ReadAll(c)
		v.t.Fatal(err, string(b))
	}
	from := time.Since(at)
	at = time.Now()
	b := make([]byte, size)
	for left := bulkBytes; left > 0; left -= size {
		if _, err := link.Write(b[:min(size, left)]); err != nil {
			v.t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		v.t.Fatal(err)
	}
	to := time.Since(at)
	go func() { _, _ = io.Copy(link, link) }()
	trip, err := io.ReadAll(c)
	v.t.Logf("virtio-serial, %d KiB writes: from the guest %.0f MiB/s, %s, to the guest %.0f MiB/s, %v", size>>10, 64/from.Seconds(), trip, 64/to.Seconds(), err)
}

// startDaemon starts vhost-device-vsock and returns where it listens for QEMU.
func (v *vm) startDaemon(program string) string {
	v.t.Helper()
	dir := v.t.TempDir()
	v.path = filepath.Join(dir, "v")
	control := filepath.Join(dir, "ctl")
	cmd := exec.Command(program, "--guest-cid=3", "--socket="+control, "--uds-path="+v.path)
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(control); err == nil {
			break
		}
	}
	return control
}
