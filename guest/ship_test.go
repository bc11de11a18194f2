package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/vsock"
	"github.com/guestinit/guestinit/vsock/vhostuser"
)

// A big report: so many workers with full reservoirs.
const (
	shipWorkers    = 200
	shipReservoir  = 100_000
	shipPopulation = 3
	shipRawPort    = 7000 // of the host: it takes bytes as they come
	shipRawBytes   = 64 << 20
)

// shipReport is the run of a guest that sends it, and that measures the bare link
// before.
func shipReport(env Env) error {
	seconds, err := shipRaw()
	if err != nil {
		return err
	}
	pool := mapSamples()
	if err := env.Sink.Header(env.Run); err != nil {
		return err
	}
	before := memory("VmRSS")
	begin := time.Now()
	for i := range shipWorkers {
		w := report.Worker{Index: i, WorkType: "spin_wait", Completed: true}
		for p, l := range []**report.Latency{&w.WakeLatency, &w.IterationCost, &w.TimerLatency} {
			*l = &report.Latency{Count: shipReservoir, Max: 1 << 40, Buckets: []report.Bucket{{Width: 1 << 40, Count: shipReservoir}}, Samples: pool[p*shipReservoir:][:shipReservoir]}
		}
		if err := env.Sink.Worker(&w); err != nil {
			return err
		}
	}
	took := time.Since(begin)
	return env.Sink.Trailer(report.Trailer{Run: env.Run, Notes: []string{
		fmt.Sprintf("ship rss_before_kb=%d rss_most_kb=%d link_s=%.3f sent_s=%.3f", before, memory("VmHWM"), seconds, took.Seconds()),
	}})
}

// mapSamples returns noise, as the reservoirs of workers are: mapped memory.
func mapSamples() []uint64 {
	pool := make([]uint64, shipPopulation*shipReservoir)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range pool {
		pool[i] = uint64(random.ExpFloat64() * 1e5)
	}
	return pool
}

// shipRaw sends bytes to the host's raw port and returns how long it took.
func shipRaw() (seconds float64, err error) {
	c, err := vsock.Dial(context.Background(), vsock.CIDHost, shipRawPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := make([]byte, 28<<10)
	at := time.Now()
	for left := shipRawBytes; left > 0; left -= len(b) {
		if _, err := c.Write(b[:min(len(b), left)]); err != nil {
			return 0, err
		}
	}
	_, err = io.ReadFull(c, b[:1])
	return time.Since(at).Seconds(), err
}

// memory is a field of this process's status in kB.
func memory(field string) (kb int) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), field+":"); ok {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb
}

// vsockVM boots this test binary with a vsock device and returns the stream that
// the guest opened. prepare may listen on the device before.
func vsockVM(t *testing.T, k *kernel.Kernel, prepare func(*vhostuser.Device)) (net.Conn, *qemu.VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vmDeadline)
	t.Cleanup(cancel)
	ctl := filepath.Join(t.TempDir(), "ctl")
	dev, err := vhostuser.New(vhostuser.Options{Socket: ctl, Buffer: 1 << 20, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	l, err := dev.Listen(vsock.Port)
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(dev)
	}
	vmlinux, err := k.Vmlinux()
	if err != nil {
		t.Fatal(err)
	}
	version, err := qemu.ProbeVersion(ctx, qemu.DefaultBinary)
	if err != nil {
		t.Fatal(err)
	}
	accel, err := qemu.NewAccelerator(qemu.TCG, "", version)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := qemu.Start(ctx, qemu.Config{
		Kernel: vmlinux, Initrd: buildImage(t, k, vmCase{vsock: true}), CPUs: 2, Accel: accel, Vsock: ctl,
		Append: "console=ttyS0 quiet panic=-1 cryptomgr.notests=1 tsc=reliable guestinit.link=vsock guestinit.spec=link",
	}, qemu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Kill() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("%v\n%s", err, vm.ConsoleTail())
	}
	return conn, vm
}

// ends waits for the guest's power-off.
func ends(t *testing.T, vm *qemu.VM) {
	t.Helper()
	select {
	case <-vm.Done():
	case <-time.After(vmDeadline):
		t.Fatalf("the guest did not end\n%s", vm.ConsoleTail())
	}
	if exit := vm.Exit(); exit.Shutdown != "guest-shutdown" {
		t.Errorf("exit %+v\n%s", exit, vm.ConsoleTail())
	}
}

// TestVMShips has a guest send a report of 240 MB: all of it arrives, is decoded
// and checked, and PID 1 holds little of it at any time.
func TestVMShips(t *testing.T) {
	conn, vm := vsockVM(t, newest(t), func(dev *vhostuser.Device) {
		l, err := dev.Listen(shipRawPort)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, c, shipRawBytes)
			_, _ = c.Write([]byte{1})
			_, _ = c.Read(make([]byte, 1))
			c.Close()
		}()
	})
	r, w := io.Pipe()
	var rep *report.Report
	var first time.Time
	decoded := make(chan error, 1)
	go func() {
		var err error
		rep, err = report.Decode(&stamped{r, &first}, report.Limits{})
		_, _ = io.Copy(io.Discard, r)
		decoded <- err
	}()
	out, err := vsock.Serve(t.Context(), conn, vsock.HostHandler{Report: w, Spec: func() []byte { return []byte(vmSpec("ships")) }})
	w.Close()
	if err := errors.Join(err, <-decoded); err != nil || !out.Done() {
		t.Fatalf("%+v, %v\n%s", out, err, vm.ConsoleTail())
	}
	took := time.Since(first).Seconds()
	ends(t, vm)
	var before, most int
	var link, sent float64
	note := rep.Notes[len(rep.Notes)-1]
	if _, err := fmt.Sscanf(note, "ship rss_before_kb=%d rss_most_kb=%d link_s=%f sent_s=%f", &before, &most, &link, &sent); err != nil {
		t.Fatal(note, err)
	}
	if len(rep.Workers) != shipWorkers || out.ReportBytes < shipWorkers*shipPopulation*shipReservoir*4 {
		t.Errorf("%d workers in %d bytes", len(rep.Workers), out.ReportBytes)
	}
	if grown := most - before; grown > 64<<10 {
		t.Errorf("PID 1 grew by %d kB, from %d kB", grown, before)
	}
	rate, raw := float64(out.ReportBytes)/(1<<20)/took, float64(shipRawBytes>>20)/link
	t.Logf("report of %d MiB, decoded at %.1f MiB/s; the link alone, in writes of 28 KiB: %.1f MiB/s (%.2f); PID 1: %d kB at most, %d kB before",
		out.ReportBytes>>20, rate, raw, rate/raw, most, before)
	if os.Getenv("GUESTINIT_LONG") != "" && rate < raw/2 {
		t.Errorf("less than half of the link's throughput")
	}
}

// stamped notes when the first byte came.
type stamped struct {
	io.Reader
	first *time.Time
}

func (s *stamped) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if n > 0 && s.first.IsZero() {
		*s.first = time.Now()
	}
	return n, err
}

// TestVMBigSpec sends a spec of the largest size.
func TestVMBigSpec(t *testing.T) {
	spec := []byte(vmSpec("ok"))
	spec = append(spec, bytes.Repeat([]byte(" "), cmdline.MaxSpec-len(spec))...)
	conn, vm := vsockVM(t, newest(t), nil)
	var sent bytes.Buffer
	out, err := vsock.Serve(t.Context(), conn, vsock.HostHandler{Report: &sent, Spec: func() []byte { return spec }})
	if err != nil || !out.Done() {
		t.Fatalf("%+v, %v\n%s", out, err, vm.ConsoleTail())
	}
	ends(t, vm)
	if rep, err := report.Decode(&sent, report.Limits{}); err != nil || len(rep.Workers) != 3 {
		t.Errorf("%v", err)
	}
}

// TestVMHostLeaves closes the link while the workload runs: the guest powers off.
func TestVMHostLeaves(t *testing.T) {
	conn, vm := vsockVM(t, newest(t), nil)
	ctx, leave := context.WithCancel(t.Context())
	out, err := vsock.Serve(ctx, conn, vsock.HostHandler{
		Spec:    func() []byte { return []byte(vmSpec("stops")) },
		OnEvent: func(vsock.Event) { leave() }, // the run has begun
	})
	if !errors.Is(err, context.Canceled) || out.Bye != nil {
		t.Errorf("%+v, %v", out, err)
	}
	begin := time.Now()
	ends(t, vm)
	t.Logf("the guest ended %v after the host left", time.Since(begin).Round(time.Millisecond))
	if text := string(vm.ConsoleTail()); !strings.Contains(text, "the host has left") {
		t.Errorf("the console does not say why\n%s", text)
	}
}
