package spawn

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// modes are the ways to run a group.
var modes = []string{Fork, Thread, Container}

const faultType = "fault_injection"

// group is n workers of a type, with parameters as name, value, name, value.
func group(n int, name string, params ...any) spec.Group {
	g := spec.Group{Workers: n, Work: spec.Work{Type: name, Params: map[string]any{}}}
	for i := 0; i < len(params); i += 2 {
		g.Work.Params[params[i].(string)] = params[i+1]
	}
	return g
}

func start(t *testing.T, groups ...spec.Group) *Handle {
	t.Helper()
	return startMode(t, Fork, groups...)
}

// startMode is start in a clone mode; Container is Fork with every group in a
// container of its own.
func startMode(t *testing.T, mode string, groups ...spec.Group) *Handle {
	t.Helper()
	if mode == Container {
		mode = Fork
		for i := range groups {
			groups[i].Pcomm = "gi-box"
		}
	}
	h, err := Spawn(Workload{CloneMode: mode, Groups: groups, Samples: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	h.Start()
	return h
}

func collect(t *testing.T, h *Handle) []report.Worker {
	t.Helper()
	reports, err := h.StopAndCollect()
	if err != nil {
		t.Fatal(err)
	}
	return reports
}

// TestSamplesAreOfThePopulation checks the reservoir against the exact figures.
func TestSamplesAreOfThePopulation(t *testing.T) {
	h := start(t, group(1, "timer_latency", "interval", "100us"))
	time.Sleep(300 * time.Millisecond)
	r := &collect(t, h)[0]
	h.AttachSamples(0, r)
	l := r.TimerLatency
	if len(l.Samples) != int(min(l.Count, 1000)) {
		t.Fatalf("%d samples of %d values", len(l.Samples), l.Count)
	}
	for _, v := range l.Samples {
		if v := v.Ns(); v < l.Min || v > l.Max {
			t.Fatalf("sample %d outside %d to %d", v, l.Min, l.Max)
		}
	}
}

func TestZeroWorkersMakeNothing(t *testing.T) { // S7
	h, err := Spawn(Workload{})
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	if r := collect(t, h); len(r) != 0 {
		t.Errorf("%d reports", len(r))
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func TestCollectStartsWorkers(t *testing.T) { // S26, S27
	h, err := Spawn(Workload{Groups: []spec.Group{group(2, "spin_wait")}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	first := collect(t, h)
	if !first[0].Completed || !first[1].Completed {
		t.Errorf("reports %+v", first)
	}
	again := collect(t, h)
	if again[0].TID != first[0].TID || again[0].WorkUnits != first[0].WorkUnits {
		t.Error("a second collection differs from the first")
	}
}

func TestSnapshotRises(t *testing.T) { // S9
	h := start(t, group(1, "spin_wait"), group(2, "pipe_io"))
	var was []uint64
	for range 100 {
		now := h.SnapshotIterations()
		if len(now) != 3 {
			t.Fatalf("%d counters for 3 workers", len(now))
		}
		if was == nil && !slices.Contains(now, 0) {
			was = now
		}
		if was != nil && now[0] > was[0] && now[1] > was[1] && now[2] > was[2] {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the counters do not rise")
}

// TestSetUpIsApplied asks the kernel what the workers got (S16, S18, S22).
func TestSetUpIsApplied(t *testing.T) {
	nice := 7
	spin := group(1, "spin_wait")
	spin.Nice, spin.Comm, spin.Affinity = &nice, "gi-worker", &spec.Affinity{Exact: spec.CPUList{0}}
	idle := group(1, "spin_wait")
	idle.Sched = &spec.Sched{Policy: "batch"}
	h := start(t, spin, idle, group(2, "pipe_io"))
	pids := h.WorkerPIDs()
	waitRunning(t, h)
	if tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pids[0])); len(tasks) != 1 {
		t.Errorf("a worker is %d tasks", len(tasks))
	}
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pids[0])); string(comm) != "gi-worker\n" {
		t.Errorf("comm is %q", comm)
	}
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, pids[0]); err != nil || 20-raw != nice {
		t.Errorf("nice is %d, %v", 20-raw, err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pids[0], &set); err != nil || set.Count() != 1 || !set.IsSet(0) {
		t.Errorf("affinity has %d CPUs, %v", set.Count(), err)
	}
	if attr, err := unix.SchedGetAttr(pids[1], 0); err != nil || attr.Policy != unix.SCHED_BATCH {
		t.Errorf("policy is %+v, %v", attr, err)
	}
	for i, pid := range pids {
		if pgid, err := unix.Getpgid(pid); err != nil || pgid != pid {
			t.Errorf("process group of worker %d (pid %d) is %d, %v", i, pid, pgid, err)
		}
		want := 0
		if i >= 2 {
			want = 2 // its end of each of the pair's pipes
		}
		if got := openFiles(t, pid); len(got) != want {
			t.Errorf("worker %d has %v open, want %d pipe ends", i, got, want)
		}
	}
}

func openFiles(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		link, _ := os.Readlink(dir + "/" + e.Name())
		files = append(files, e.Name()+"="+link)
	}
	return files
}

// await waits for something to be so, for a minute: longer than any machine
// takes that does not hang.
func await(t *testing.T, what string, so func() bool) bool {
	t.Helper()
	return awaitIn(t, time.Minute, what, so)
}

// waitFor is await that ends the test where it is in vain. It waits less long than
// the gate, at whose end workers that nobody let run go away by themselves.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	if !awaitIn(t, gateTimeout*2/3, what, so) {
		t.FailNow()
	}
}

func awaitIn(t *testing.T, limit time.Duration, what string, so func() bool) bool {
	t.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: nothing happens in %v", what, limit)
			return false
		}
	}
	return true
}

// waitRunning waits until all workers are in their loops.
func waitRunning(t *testing.T, h *Handle) {
	t.Helper()
	waitFor(t, "the workers in their loops", func() bool { return int(h.arena.shared.ReadyCount) >= len(h.members) })
}

// TestSoftFailureIsReported asks for a CPU that does not exist (S22).
func TestSoftFailureIsReported(t *testing.T) {
	g := group(1, "spin_wait")
	g.Affinity = &spec.Affinity{Exact: spec.CPUList{worker.MaxCPUs - 1}}
	h := start(t, g)
	r := collect(t, h)[0]
	if !r.Completed || !strings.HasPrefix(r.SoftErrors["affinity"], "EINVAL") {
		t.Errorf("completed %v, soft errors %v", r.Completed, r.SoftErrors)
	}
}

// TestWorkersHaveTheSlackOfTheirSpawner checks the timer slack in every mode: the
// cloner's thread has none itself where it is a real-time one.
func TestWorkersHaveTheSlackOfTheirSpawner(t *testing.T) {
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0) // of this thread, which is no cloner
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintln(slack)
	for _, mode := range modes {
		h := startMode(t, mode, group(2, "spin_wait"))
		waitRunning(t, h)
		for i := range h.members {
			path := fmt.Sprintf("/proc/%d/timerslack_ns", h.members[i].slab.TID)
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("%s worker %d: timer slack %q, %v, want %q", mode, i, got, err, want)
			}
		}
		collect(t, h)
	}
}

func TestSetAffinityMovesAWorker(t *testing.T) { // S26
	h := start(t, group(1, "spin_wait"))
	if err := h.SetAffinity(0, spec.CPUList{0}); err != nil {
		t.Fatal(err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(h.WorkerPIDs()[0], &set); err != nil || set.Count() != 1 {
		t.Errorf("affinity has %d CPUs, %v", set.Count(), err)
	}
	for _, bad := range []struct {
		i    int
		cpus spec.CPUList
	}{{1, spec.CPUList{0}}, {-1, spec.CPUList{0}}, {0, nil}, {0, spec.CPUList{worker.MaxCPUs}}} {
		if h.SetAffinity(bad.i, bad.cpus) == nil {
			t.Errorf("SetAffinity(%d, %v) is accepted", bad.i, bad.cpus)
		}
	}
}

// TestWorkerMemory holds the promise of the documentation: under 120 KB of
// proportional set size for a worker that spins among seven others.
func TestWorkerMemory(t *testing.T) {
	h := start(t, group(8, "spin_wait"))
	waitRunning(t, h)
	for _, pid := range h.WorkerPIDs() {
		if pss := readPSS(t, pid); pss >= 120 {
			t.Errorf("worker %d has a PSS of %d KB", pid, pss)
		}
	}
}

// readPSS is the proportional set size of a process in KB.
func readPSS(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatal("smaps_rollup has no Pss")
	return 0
}

func TestCloseWithoutCollecting(t *testing.T) { // S31, S33
	h := start(t, group(2, "spin_wait"), group(2, "futex_ping_pong"))
	pids := h.WorkerPIDs()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			t.Errorf("worker %d after Close: %v", pid, err)
		}
		if Owns(pid) {
			t.Errorf("pid %d is still owned", pid)
		}
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := h.StopAndCollect(); err == nil {
		t.Error("collecting a closed handle is accepted")
	}
}
