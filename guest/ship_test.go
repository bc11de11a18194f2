package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
	"github.com/guestinit/guestinit/vsock/vhostuser"
	"github.com/guestinit/guestinit/worker"
)

// A big report: so many workers with full reservoirs.
const (
	shipWorkers    = 200
	shipPopulation = 3
	shipMemory     = 1024 // MiB of the guest: the reservoirs alone are 458
	shipRawPort    = 7000 // of the host: it takes bytes as they come
	shipRawBytes   = 64 << 20
	shipMost       = 64 << 10 // kB that PID 1 may hold beside the workers' own memory
	shipHead       = 128 << 10
)

const shipSpec = `{"version":1,"name":"name-ships","duration":"2m","deadline":"150s",
	"groups":[{"name":"full","workers":200,"work":{"type":"flood"}}]}`

// floodType is a work type that has all three latencies.
var floodType = worker.Type{Name: "flood", Summary: "fill all reservoirs", Wake: true, Cost: true, Timer: true}

// flood fills the worker's reservoirs with noise, as fast as it can. One pass is
// all of it.
func flood(s *worker.Slab) {
	rng := uint64(s.TID)
	for _, addr := range [shipPopulation]uintptr{s.Wake, s.Cost, s.Timer} {
		samples := worker.Samples(addr, s.Reservoir)
		for range samples {
			rng ^= rng << 13
			rng ^= rng >> 7
			rng ^= rng << 17
			worker.LatencyAt(addr).Record(rng>>40, samples)
		}
	}
	s.Pass()
	for !s.Stopped() {
		s.SleepUntil(worker.Now() + 1e8)
	}
}

// shipReport is the run of a guest that sends it, through the whole pipeline, and
// that measures the bare link before and after.
func shipReport(ctx context.Context, env Env) error {
	before, err := shipRaw()
	if err != nil {
		return err
	}
	s, err := spec.ParseJSON([]byte(shipSpec))
	if err != nil {
		return err
	}
	ctx, full := context.WithCancel(ctx)
	defer full()
	var begin time.Time
	var held memoryHeld
	sent := 0
	res, err := scenario.Run(ctx, s, env.Run, scenario.Sink{
		Samples: true,
		Begin:   env.Sink.Header,
		Progress: func(_ time.Duration, groups []scenario.Progress) {
			if groups[0].Iterations == shipWorkers {
				full()
			}
		},
		Worker: func(w *report.Worker) error {
			if begin.IsZero() {
				begin = time.Now()
			}
			// Seldom: to look costs an emulated CPU much.
			if sent%50 == 0 || sent == shipWorkers-1 {
				held.look()
			}
			sent++
			return env.Sink.Worker(w)
		},
	})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	after, err := shipRaw()
	if err != nil {
		return err
	}
	return env.Sink.Trailer(report.Trailer{Run: res.Run, Notes: []string{
		fmt.Sprintf("ship link_s=%.3f+%.3f sent_s=%.3f held_kb=%d shared_kb=%d", before, after, took.Seconds(), held.most, held.shared),
	}})
}

// memoryHeld is what this process holds, in kB.
type memoryHeld struct {
	most   int // beside shared memory
	shared int // which is the workers' own: it is read, once, and stays theirs
}

// look notes what is held now, and the most there ever was less what is shared
// now: that only grows.
func (h *memoryHeld) look() {
	h.shared = memory("RssShmem")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.most = max(h.most, memory("RssAnon")+memory("RssFile"), memory("VmHWM")-h.shared, int(m.Sys>>10))
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
func vsockVM(t *testing.T, k *kernel.Kernel, memory int, prepare func(*vhostuser.Device)) (net.Conn, *qemu.VM) {
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
		Kernel: vmlinux, Initrd: buildImage(t, k, vmCase{vsock: true}), MemoryMiB: memory, CPUs: 2, Accel: accel, Vsock: ctl,
		Append: qemu.BaseAppend + " guestinit.link=vsock guestinit.spec=link",
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

// TestVMShips has a guest run 200 workers until their reservoirs are full: the
// report of 240 MB arrives, is decoded and checked, and PID 1 holds little of it
// at any time.
func TestVMShips(t *testing.T) { ships(t, newest(t)) }

// TestLongVMShips does it on every kernel, and holds the rate to the link's: the
// median of three shares, as a busy machine slows now the one, now the other.
func TestLongVMShips(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("part of the long matrix; run with GUESTINIT_LONG=1")
	}
	for _, k := range testKernels(t) {
		t.Run(k.Release, func(t *testing.T) {
			shares := []float64{ships(t, k), ships(t, k), ships(t, k)}
			if slices.Sort(shares); shares[1] < 0.5 {
				t.Errorf("%.2f of the link's throughput, want half of it", shares)
			}
		})
	}
}

// ships returns the report's share of the link's throughput.
func ships(t *testing.T, k *kernel.Kernel) (share float64) {
	conn, vm := vsockVM(t, k, shipMemory, func(dev *vhostuser.Device) {
		l, err := dev.Listen(shipRawPort)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.CopyN(io.Discard, c, shipRawBytes)
				_, _ = c.Write([]byte{1})
				_, _ = c.Read(make([]byte, 1))
				c.Close()
			}
		}()
	})
	r, w := io.Pipe()
	var rep *report.Report
	var body stamped
	decoded := make(chan error, 1)
	go func() {
		var err error
		body.Reader = r
		rep, err = report.Decode(&body, report.Limits{KeepSamples: true})
		_, _ = io.Copy(io.Discard, r)
		decoded <- err
	}()
	out, err := vsock.Serve(t.Context(), conn, vsock.HostHandler{Report: w, Spec: func() []byte { return []byte(vmSpec("ships")) }})
	w.Close()
	if err := errors.Join(err, <-decoded); err != nil || !out.Done() {
		t.Fatalf("%+v, %v\n%s", out, err, vm.ConsoleTail())
	}
	took := time.Since(body.began).Seconds()
	ends(t, vm)
	var held, shared int
	var before, after, sent float64
	note := rep.Notes[len(rep.Notes)-1]
	if _, err := fmt.Sscanf(note, "ship link_s=%f+%f sent_s=%f held_kb=%d shared_kb=%d", &before, &after, &sent, &held, &shared); err != nil {
		t.Fatal(note, err)
	}
	checkFull(t, rep)
	if held > shipMost {
		t.Errorf("PID 1 held %d kB beside the workers' memory, at most %d", held, shipMost)
	}
	if shared < shipWorkers*shipPopulation*worker.ReservoirCap*4>>10 {
		t.Errorf("PID 1 read %d kB of the workers' memory: they filled no reservoirs", shared)
	}
	took -= after // that was before the end of the report
	rate, raw := float64(out.ReportBytes-shipHead)/(1<<20)/took, 2*float64(shipRawBytes>>20)/(before+after)
	t.Logf("kernel %s: report of %d MiB, decoded at %.1f MiB/s, sent in %.1f s; the link alone, in writes of 28 KiB: %.1f MiB/s (%.2f), %.2f s before and %.2f s after for %d MiB; PID 1 held %d kB at most, beside %d kB of the workers' own",
		k.Release, out.ReportBytes>>20, rate, sent, raw, rate/raw, before, after, shipRawBytes>>20, held, shared)
	return rate / raw
}

// checkFull checks that all samples of all workers came.
func checkFull(t *testing.T, rep *report.Report) {
	t.Helper()
	if len(rep.Workers) != shipWorkers {
		t.Errorf("%d workers, want %d", len(rep.Workers), shipWorkers)
	}
	for i := range rep.Workers {
		w := &rep.Workers[i]
		for _, l := range []*report.Latency{w.WakeLatency, w.IterationCost, w.TimerLatency} {
			if l == nil || l.Count != worker.ReservoirCap || len(l.Samples) != worker.ReservoirCap {
				t.Fatalf("worker %d: a reservoir is not full: %+v", i, w)
			}
			var sum uint64
			for _, v := range l.Samples {
				sum += v.Ns()
			}
			if sum != l.Sum { // nothing was left out: the samples are the population
				t.Fatalf("worker %d: the samples sum to %d, the population to %d", i, sum, l.Sum)
			}
		}
	}
}

// stamped notes when the report's body began: behind its header, which comes
// before the workers run.
type stamped struct {
	io.Reader
	read  int
	began time.Time
}

// Read is io.Reader's.
func (s *stamped) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.read += n; s.read >= shipHead && s.began.IsZero() {
		s.began = time.Now()
	}
	return n, err
}

// TestVMBigSpec sends a spec of the largest size, over each link.
func TestVMBigSpec(t *testing.T) { bigSpec(t, newest(t)) }

// TestLongVMBigSpec does it on every kernel.
func TestLongVMBigSpec(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("part of the long matrix; run with GUESTINIT_LONG=1")
	}
	for _, k := range testKernels(t) {
		t.Run(k.Release, func(t *testing.T) { bigSpec(t, k) })
	}
}

func bigSpec(t *testing.T, k *kernel.Kernel) {
	text := []byte(vmSpec("ok"))
	text = append(text, bytes.Repeat([]byte(" "), cmdline.MaxSpec-len(text))...)
	t.Run("vsock", func(t *testing.T) {
		t.Parallel()
		conn, vm := vsockVM(t, k, 0, nil)
		var sent bytes.Buffer
		out, err := vsock.Serve(t.Context(), conn, vsock.HostHandler{Report: &sent, Spec: func() []byte { return text }})
		if err != nil || !out.Done() {
			t.Fatalf("%+v, %v\n%s", out, err, vm.ConsoleTail())
		}
		ends(t, vm)
		if rep, err := report.Decode(&sent, report.Limits{}); err != nil || len(rep.Workers) != 3 {
			t.Errorf("%v", err)
		}
	})
	t.Run("serial", func(t *testing.T) {
		t.Parallel()
		res := bootVM(t, k, vmCase{args: []string{"guestinit.link=serial guestinit.spec=link"}, spec: text})
		if res.err != nil || !res.out.Done() || len(res.rep.Workers) != 3 {
			t.Errorf("%+v, %v\n%s", res.out, res.err, res.console)
		}
	})
}

// TestVMHostLeaves closes the link while the workload runs: the guest powers off.
func TestVMHostLeaves(t *testing.T) {
	conn, vm := vsockVM(t, newest(t), 0, nil)
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
