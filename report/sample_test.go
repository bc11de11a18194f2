package report

import (
	"encoding/json"
	"strings"
)

// population is a Latency over n values from lo upwards, step apart, in buckets
// of the log-linear scheme.
func population(lo, step uint64, n int) *Latency {
	l := &Latency{}
	for i := range n {
		v := lo + uint64(i)*step
		width := uint64(1)
		for v/width >= 64 {
			width *= 2
		}
		b := Bucket{Lo: v - v%width, Width: width, Count: 1}
		if k := len(l.Buckets); k > 0 && l.Buckets[k-1].Lo == b.Lo {
			l.Buckets[k-1].Count++
		} else {
			l.Buckets = append(l.Buckets, b)
		}
		if i == 0 {
			l.Min = v
		}
		l.Max = v
		l.Sum += v
		l.Samples = append(l.Samples, PackSample(v))
	}
	l.Summarize()
	return l
}

// sampleRun is a run in a guest.
func sampleRun() Run {
	return Run{
		Name: "quickstart", Version: "v0.1.0", KernelRelease: "6.12.57+deb12-cloud-amd64", Machine: "x86_64",
		KernelCmdline: "console=ttyS0 panic=-1", Accelerator: "tcg,thread=single", QEMUVersion: "7.2.19",
		Link: "serial", Clocksource: "tsc", CPUs: 2, NUMANodes: 1, Spawner: "fifo:99", CloneMode: "fork",
		BootMs:       map[string]float64{"kernel": 642.5, "mounts": 3.25, "modules": 41, "link": 2.75, "spec": 0.8},
		BootAttempts: 2, DurationMs: 3001.5, StartSkewNs: 1_250_000, CollectMs: 34.2,
		Spec: json.RawMessage(`{"version":1,"groups":[{"workers":2,"work":{"type":"bursty"}}]}`),
	}
}

// sampleReport is a finished report: four groups, all completed.
func sampleReport() *Report {
	r := &Report{SchemaVersion: SchemaVersion, Run: sampleRun(), Notes: []string{
		"tracefs is not mounted: no such device; the kernel has no CONFIG_FTRACE",
	}}
	add := func(group, index int, work string, edit func(*Worker)) {
		w := Worker{
			TID: 200 + len(r.Workers), GroupIndex: group, Index: index, WorkType: work, Completed: true,
			WorkUnits: 1_024_000, Iterations: 36_917, WallNs: 3_000_000_000, CPUNs: 1_400_000_000, OffCPUNs: 1_600_000_000,
			StartedNs: 800_000, Migrations: 2, MigrationList: []Migration{{AtNs: 5000, From: 0, To: 1}, {AtNs: 9000, From: 1, To: 0}},
			CPUsUsed: "0-1", MaxGapNs: 4_100_000, MaxGapCPU: 1, MaxGapAtNs: 77,
			Schedstat: Schedstat{CPUNs: 1_400_000_000, RunDelayNs: 81_000_000, RunCount: 900},
		}
		edit(&w)
		r.Workers = append(r.Workers, w)
	}
	for i := range 2 {
		add(0, i, "bursty", func(w *Worker) { w.WakeLatency = population(20_000_000, 130_000, 90) })
	}
	for i := range 2 {
		add(1, i, "pipe_io", func(w *Worker) { w.WakeLatency = population(1_800, 77, 4000); w.CPUsUsed = "1" })
	}
	for i := range 2 {
		add(2, i, "futex_ping_pong", func(w *Worker) {
			w.WakeLatency = population(900, 13, 6000)
			w.SoftErrors = map[string]string{"affinity": "invalid argument"}
		})
	}
	add(3, 0, "timer_latency", func(w *Worker) {
		w.TimerLatency = population(52_000, 310, 2990)
		w.IterationCost = population(400, 1, 2990)
		w.NUMAPages = map[string]uint64{"0": 19}
	})
	r.Aggregate([]GroupInfo{{Name: "background", WorkType: "bursty", Workers: 2}, {Name: "pipes", WorkType: "pipe_io", Workers: 2}, {Name: "futexes", WorkType: "futex_ping_pong", Workers: 2}, {Name: "timers", WorkType: "timer_latency", Workers: 1}})
	r.Judge()
	return r
}

// failedReport has a crash, an exit, a hang and a missing worker.
func failedReport() *Report {
	r := sampleReport()
	r.Run.Accelerator, r.Run.Link, r.Run.QEMUVersion, r.Run.BootMs, r.Run.BootAttempts = "none", "none", "", nil, 0
	r.Notes = append(r.Notes, "a note that is long enough to be wrapped, because it tells the whole story of a fallback and what "+
		"to do about it, with a hostile \x1b[31mescape\x1b[0m in it")
	crash := func(i int, partial bool, e ExitInfo) {
		w := &r.Workers[i]
		w.Completed, w.Partial, w.ExitInfo = false, partial, &e
	}
	crash(1, true, ExitInfo{Kind: ExitSignaled, Signal: 11, Text: "fault at address 0x8", Stack: []string{
		"github.com/guestinit/guestinit/worker.burstyLoop+0x52 (bursty.go:31)", "github.com/guestinit/guestinit/worker.run+0x1a4 (run.go:88)",
	}})
	crash(2, false, ExitInfo{Kind: ExitExited, Code: 3})
	crash(4, true, ExitInfo{Kind: ExitTimedOut})
	r.Workers[2].Stdout = &Output{Head: "first line\nsecond\tline \x1b[31m\n", Bytes: 30}
	r.Workers[2].Stderr = &Output{Head: "begin\n", Tail: strings.Repeat("x", 120) + "\nend", Bytes: 12345, Omitted: 12000}
	r.Aggregate([]GroupInfo{{Name: "background-load-with-a-long-name", WorkType: "bursty", Workers: 2}, {Name: "pipes", WorkType: "pipe_io", Workers: 2}, {Name: "futexes", WorkType: "futex_ping_pong", Workers: 2}, {Name: "timers", WorkType: "timer_latency", Workers: 2}})
	r.Judge()
	return r
}

// timedOutReport is what a launcher knows of a guest that never said hello.
func timedOutReport() *Report {
	r := &Report{
		Failures: []string{"timeout: the guest did not reach /init within 1m0s under tcg,thread=single"},
		Run: Run{
			Name: "quickstart", KernelRelease: "6.12.57+deb12-cloud-amd64", Accelerator: "tcg,thread=single", QEMUVersion: "7.2.19",
			Link: "serial", BootMs: map[string]float64{"image": 7.5},
		},
	}
	r.Aggregate([]GroupInfo{{Name: "background", WorkType: "bursty", Workers: 2}, {Name: "pipes", WorkType: "pipe_io", Workers: 2}})
	r.Judge()
	return r
}

// tornReport is of a guest that sent its header and one group.
func tornReport() *Report {
	r := sampleReport()
	r.Run.DurationMs, r.Run.StartSkewNs, r.Run.CollectMs = 0, 0, 0
	r.Workers, r.Groups = r.Workers[:2], nil
	r.Failures = []string{"guest crashed: the guest's kernel panicked"}
	r.Aggregate([]GroupInfo{{Name: "background", WorkType: "bursty", Workers: 2}, {Name: "pipes", WorkType: "pipe_io", Workers: 2}})
	r.Judge()
	return r
}
