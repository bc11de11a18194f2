package spawn

import (
	"context"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// TestPhasesAddUp runs two steps with a gap and checks that the slices of every
// worker partition what it measured in all (S10).
func TestPhasesAddUp(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			groups := []spec.Group{group(1, "timer_latency", "interval", "2ms"), group(2, "futex_ping_pong")}
			w := Workload{Groups: groups, Phases: 3}
			if mode == Thread {
				w.CloneMode = Thread
			}
			if mode == Container {
				groups[0].Pcomm, groups[1].Pcomm = "gi-a", "gi-b"
			}
			h, err := Spawn(w)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			h.Start()
			waitRunning(t, h)
			for _, epoch := range []uint32{1, BetweenPhases, 2} {
				waitProgress(t, h)
				h.SetPhase(epoch)
			}
			waitProgress(t, h)
			for _, r := range collect(t, h) {
				checkPhases(t, &r)
			}
		})
	}
}

func checkPhases(t *testing.T, r *report.Worker) {
	t.Helper()
	want := []uint32{0, 1, BetweenPhases, 2}
	if len(r.Phases) != len(want) {
		t.Fatalf("%s: %d slices, want %d", r.WorkType, len(r.Phases), len(want))
	}
	var units, iterations, wall, runs, wakes, timers uint64
	for i, p := range r.Phases {
		if p.Epoch != want[i] || p.WallNs == 0 || p.Iterations == 0 || p.CPUsUsed == "" {
			t.Errorf("%s: slice %d is %+v", r.WorkType, i, p)
		}
		units, iterations, wall, runs = units+p.WorkUnits, iterations+p.Iterations, wall+p.WallNs, runs+p.Schedstat.RunCount
		if l := p.WakeLatency; l != nil {
			wakes += l.Count
			if len(l.Samples) != int(min(l.Count, 8192)) {
				t.Errorf("%s: slice %d has %d samples of %d wake-ups", r.WorkType, i, len(l.Samples), l.Count)
			}
		}
		if l := p.TimerLatency; l != nil {
			timers += l.Count
		}
	}
	if units != r.WorkUnits || iterations != r.Iterations || wall != r.WallNs || runs > r.Schedstat.RunCount {
		t.Errorf("%s: the slices add up to %d units, %d passes, %d ns, %d runs, the worker has %d, %d, %d, %d", r.WorkType,
			units, iterations, wall, runs, r.WorkUnits, r.Iterations, r.WallNs, r.Schedstat.RunCount)
	}
	if r.WakeLatency != nil && wakes != r.WakeLatency.Count || r.TimerLatency != nil && timers != r.TimerLatency.Count {
		t.Errorf("%s: %d wake-ups and %d timers in the slices", r.WorkType, wakes, timers)
	}
}

// TestPhasesWithoutWork holds up workers over whole phases, in every way that they
// can be: stopped in a pass, blocked in a wait for one that is stopped, stopped
// before their loops, killed. Each has a slice of every phase, with work in none
// where it did nothing, and the slices still add up (S10).
func TestPhasesWithoutWork(t *testing.T) {
	h, err := Spawn(Workload{Groups: []spec.Group{group(2, "pipe_io"), group(2, "futex_ping_pong"), group(1, "spin_wait"), group(1, "spin_wait")}, Phases: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	pids := h.WorkerPIDs()
	held := []int{0, 2, 4, 5} // worker 5 before its loop
	unix.Kill(pids[5], unix.SIGSTOP)
	waitState(t, pids[5], "T")
	h.Start()
	waitFor(t, "the workers' passes", func() bool {
		n := h.SnapshotIterations()
		return min(n[0], n[1], n[2], n[3], n[4]) > 0
	})
	for _, i := range held {
		unix.Kill(pids[i], unix.SIGSTOP)
		waitState(t, pids[i], "T")
	}
	waitState(t, pids[1], "S") // what their partners sent is used up: they wait for good
	waitState(t, pids[3], "S")
	for _, epoch := range []uint32{1, BetweenPhases, 2} {
		h.SetPhase(epoch)
	}
	unix.Kill(pids[4], unix.SIGKILL)
	for _, i := range held {
		unix.Kill(pids[i], unix.SIGCONT)
	}
	begin := h.SnapshotIterations()
	await(t, "the last phase", func() bool {
		n := h.SnapshotIterations()
		return min(n[0]-begin[0], n[1]-begin[1], n[2]-begin[2], n[3]-begin[3], n[5]) > 3
	})
	for i, r := range collect(t, h) {
		if r.Completed != (i != 4) {
			t.Errorf("worker %d: completed %v, %+v", i, r.Completed, r.ExitInfo)
		}
		checkIdlePhases(t, i, &r)
	}
}

// checkIdlePhases checks slices of workers that worked before phase 1, but for
// worker 5, and in phase 2, but for worker 4, and not between.
func checkIdlePhases(t *testing.T, i int, r *report.Worker) {
	t.Helper()
	var epochs []uint32
	var worked []bool
	var units, wall uint64
	for _, p := range r.Phases {
		epochs, worked = append(epochs, p.Epoch), append(worked, p.WorkUnits > 0 || p.Iterations > 0)
		units, wall = units+p.WorkUnits, wall+p.WallNs
	}
	if want := []uint32{0, 1, BetweenPhases, 2}; !slices.Equal(epochs, want) {
		t.Fatalf("worker %d (%s) has slices of %v, want %v", i, r.WorkType, epochs, want)
	}
	if want := []bool{i != 5, false, false, i != 4}; !slices.Equal(worked, want) {
		t.Errorf("worker %d (%s) worked in %v, want %v", i, r.WorkType, worked, want)
	}
	if units != r.WorkUnits || wall != r.WallNs {
		t.Errorf("worker %d (%s): slices of %d units, %d ns; it has %d, %d", i, r.WorkType, units, wall, r.WorkUnits, r.WallNs)
	}
	for k, p := range r.Phases {
		if alive := i < 4; alive && p.WallNs == 0 || p.CPUNs > p.WallNs+uint64(time.Minute) || p.Schedstat.CPUNs > uint64(time.Hour) {
			t.Errorf("worker %d (%s): slice %d is %+v", i, r.WorkType, k, p)
		}
	}
}

// waitState waits until a process has been in a state for a while.
func waitState(t *testing.T, pid int, want string) {
	t.Helper()
	for end, seen := time.Now().Add(time.Minute), 0; seen < 10; time.Sleep(2 * time.Millisecond) {
		if state, _ := procState(pid); state == want {
			seen++
		} else if seen = 0; time.Now().After(end) {
			t.Fatalf("process %d is in state %s, want %s", pid, state, want)
		}
	}
}

// TestSettingsAreReadBack compares what was asked for with what the kernel gave.
func TestSettingsAreReadBack(t *testing.T) {
	nice := 5
	g := group(1, "spin_wait")
	g.Nice, g.Comm = &nice, "gi-read"
	g.Affinity = &spec.Affinity{Exact: spec.CPUList{0}}
	g.Sched = &spec.Sched{Policy: "batch"}
	g.MemPolicy = &spec.MemPolicy{Mode: "bind", Nodes: spec.CPUList{0}}
	for _, mode := range modes {
		h := startMode(t, mode, g)
		r := collect(t, h)[0]
		for name, want := range map[string]string{"nice": "5", "comm": "gi-read", "affinity": "0", "policy": "batch", "mem_policy": "bind:0"} {
			if got := r.Settings[name]; got.Asked != want || got.Got != want {
				t.Errorf("%s: %s: asked for %q, got %q, want %q", mode, name, got.Asked, got.Got, want)
			}
		}
		if s := r.Settings["uid"]; s.Asked != "" || s.Got == "" {
			t.Errorf("%s: uid: %+v", mode, s)
		}
	}
}

// TestRunEndsOnTime checks the ways that Run ends.
func TestRunEndsOnTime(t *testing.T) {
	h, err := Spawn(Workload{Groups: groups2()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if reports, err := h.Run(ctx, time.Minute); err != nil || len(reports) != 2 || !reports[0].Completed {
		t.Errorf("cancelled: %v, %d reports", err, len(reports))
	}
	if birth := h.Timing().Birth; birth <= 0 || birth > 30*time.Second {
		t.Errorf("the workers were born in %v", birth)
	}
	if run := h.Timing().Run; run < 50*time.Millisecond || run > 30*time.Second {
		t.Errorf("the workers ran for %v", run)
	}
	if _, err := h.Run(context.Background(), time.Second); err == nil {
		t.Error("a second Run is accepted")
	}
	dying, err := Spawn(Workload{Groups: []spec.Group{group(1, faultType, "kind", "exit")}})
	if err != nil {
		t.Fatal(err)
	}
	defer dying.Close()
	if _, err := dying.Run(context.Background(), time.Minute); err != nil {
		t.Error(err)
	}
	if run := dying.Timing().Run; run > 30*time.Second {
		t.Errorf("Run went on for %v after the last worker's end", run)
	}
}

// waitProgress waits until every worker has made a few passes more, and for the
// 300 ms that a phase has at least.
func waitProgress(t *testing.T, h *Handle) {
	t.Helper()
	time.Sleep(300 * time.Millisecond)
	begin := h.SnapshotIterations()
	await(t, "a phase", func() bool {
		for i, n := range h.SnapshotIterations() {
			if n < begin[i]+3 {
				return false
			}
		}
		return true
	})
}
