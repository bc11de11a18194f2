package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// fewSets are the types that real-time priorities let only one set of at a time
// run, on a machine with two CPUs.
var fewSets = []string{"rt_starvation", "preempt_storm", "priority_inversion"}

// mayNotWait are the types whose roles wait only if others keep them waiting; some
// worker does sooner or later.
var mayNotWait = []string{"mutex_contention", "priority_inversion", "producer_consumer_imbalance", "epoll_storm"}

// variants are the parameters that change what a type does, beside none.
var variants = map[string][][]any{
	"idle_churn":          {{"precise_timing", true}},
	"timer_latency":       {{"skip_missed", true}},
	"alu_hot":             {{"width", "scalar"}, {"width", "vec128"}, {"width", "vec256"}, {"width", "vec512"}, {"width", "amx"}},
	"wake_chain":          {{"wake", "futex", "depth", uint64(2)}},
	"priority_inversion":  {{"pi_mode", "pi"}},
	"asymmetric_waker":    {{"waker_class", "rt", "wakee_class", "idle"}, {"waker_class", "batch", "wakee_class", "deadline"}},
	"cgroup_attach_storm": {{"reap", "waitpid"}},
	"producer_consumer_imbalance": {
		{"producers", uint64(2), "consumers", uint64(3), "produce_rate_hz", uint64(0), "consume_iters", uint64(1), "queue_depth_target", uint64(3)}},
	"sequence":               {{"phases", []any{map[string]any{"yield": "100us"}, map[string]any{"sleep": "1ms"}, map[string]any{"alu_hot": "10us"}}}},
	"numa_working_set_sweep": {{"target_nodes", "0", "sweep_period", "5ms"}},
	"cache_pressure":         {{"size_kib", uint64(1), "stride", uint64(1 << 20)}},
	"page_fault_churn":       {{"region_kib", uint64(4), "spin_iters", uint64(0)}},
}

// TestEveryTypeReports runs every work type in every mode that it takes and
// checks that every role makes progress, that it says what it promises and
// nothing else, and that it stops soon; TestMain counts what is left behind (S8,
// S9, S27, S33).
func TestEveryTypeReports(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for i := range worker.Types {
		name := worker.Types[i].Name
		if name == faultType || name == "exec" {
			continue // TestFaults, TestProgramsEnd
		}
		for _, mode := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) { runType(t, mode, name) })
		}
		for _, params := range variants[name] {
			t.Run(name+"/"+variantName(params), func(t *testing.T) { runType(t, Fork, name, params...) })
		}
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("files are left in the temporary directory: %v", left)
	}
	if root, own, err := cgroup2(); err == nil {
		left, _ := filepath.Glob(filepath.Join(root, own, fmt.Sprintf("guestinit-work-%d-*", os.Getpid())))
		if len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	}
}

func variantName(params []any) string {
	var words []string
	for i := 0; i < len(params); i += 2 {
		words = append(words, params[i].(string))
		if s, ok := params[i+1].(string); ok {
			words = append(words, s)
		}
	}
	return strings.Join(words, "_")
}

// runType runs two sets of workers of a type until all have made a pass.
func runType(t *testing.T, mode, name string, params ...any) {
	g := group(0, name, params...)
	work, err := worker.Parse(g.Work)
	if err != nil {
		t.Fatal(err)
	}
	g.Workers = 2 * work.GroupSize()
	if slices.Contains(fewSets, name) {
		g.Workers /= 2
	}
	if refusal := refused(work.Type, mode); refusal != nil {
		checkRefusal(t, mode, g, refusal)
		return
	}
	if work.Type.Resource == worker.CgroupLeaves || work.Type.Resource == worker.CgroupTarget {
		needCgroups(t)
	}
	h := startMode(t, mode, g)
	waitPasses(t, h)
	if slices.Contains(mayNotWait, name) {
		await(t, "a wait", func() bool { return waits(h) })
	}
	reports := collect(t, h)
	checkStop(t, mode, g, h.Timing().Collect)
	if len(reports) != g.Workers {
		t.Fatalf("%d reports for %d workers", len(reports), g.Workers)
	}
	for i := range reports {
		checkReport(t, work, &reports[i])
	}
}

// A stop takes some milliseconds, and never as long as stopBound unless the
// machine does something else meanwhile. That can only add to a time, so the best
// of a few counts: a loop that does not look in time is late in each.
const (
	stopBound = 250 * time.Millisecond
	stopTries = 5
)

// checkStop checks how long it took to stop a group that is to stop within the
// bound, and stops it again if it took longer.
func checkStop(t *testing.T, mode string, g spec.Group, took time.Duration) {
	t.Helper()
	t.Logf("stopping took %v", took)
	for try := 1; took > stopBound && try < stopTries; try++ {
		t.Logf("stopping took %v, try %d", took, try)
		h := startMode(t, mode, g)
		waitPasses(t, h)
		collect(t, h)
		took = min(took, h.Timing().Collect)
	}
	if took > stopBound {
		t.Errorf("stopping took %v, the best of %d, want %v at most", took, stopTries, stopBound)
	}
}

func checkRefusal(t *testing.T, mode string, g spec.Group, want error) {
	t.Helper()
	w := Workload{CloneMode: mode, Groups: []spec.Group{g}}
	if mode == Container {
		w.CloneMode, w.Groups[0].Pcomm = Fork, "box"
	}
	if err := w.Validate(); err == nil || !strings.Contains(err.Error(), "groups[0].work.type: "+want.Error()) {
		t.Errorf("the refusal is %v", err)
	}
}

func needCgroups(t *testing.T) {
	t.Helper()
	var a arena
	_, err := a.makeCgroup("")
	if freeErr := a.free(); err != nil || freeErr != nil {
		t.Skipf("no cgroup can be made here (%v, %v); the guest tests run as root with cgroup2 mounted", err, freeErr)
	}
}

// waitPasses waits until every worker has made a pass, and a little longer.
func waitPasses(t *testing.T, h *Handle) {
	t.Helper()
	time.Sleep(50 * time.Millisecond)
	if !await(t, "a pass of every worker", func() bool { return !slices.Contains(h.SnapshotIterations(), 0) }) {
		t.Log("passes:", h.SnapshotIterations())
	}
}

// checkPages checks the pages of the worker: those of its process, or of its own
// region alone.
func checkPages(t *testing.T, work *worker.Instance, r *report.Worker) {
	t.Helper()
	pages := uint64(0)
	for _, n := range r.NUMAPages {
		pages += n
	}
	if region := work.Values[0] << 10 / pageSize; work.Type.Name == "numa_working_set_sweep" && pages != region {
		t.Errorf("worker %d: %d pages of its region, want %d", r.Index, pages, region)
	}
	if pages == 0 && r.SoftErrors["numa_pages"] == "" {
		t.Errorf("worker %d: no pages on any node", r.Index)
	}
}

// TestCrowdsStop stops many workers at once: all report, and all have the pages
// that they use, which threads read once for their process.
func TestCrowdsStop(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			g := group(scaled(1000), "futex_ping_pong")
			h := startMode(t, mode, g)
			waitPasses(t, h)
			for _, r := range collect(t, h) {
				if !r.Completed || len(r.NUMAPages) == 0 {
					t.Errorf("worker %d: completed %v, pages %v", r.Index, r.Completed, r.NUMAPages)
				}
			}
		})
	}
}

// waits tells whether any worker has recorded a wake latency.
func waits(h *Handle) bool {
	return slices.ContainsFunc(h.members, func(m member) bool {
		return atomic.LoadUint64(&worker.LatencyAt(m.slab.Wake).Count) > 0
	})
}

// TestHerdRests has the waker of thundering_herd come to the end of its batches: it
// rests then, and stops as soon as any other.
func TestHerdRests(t *testing.T) {
	const batches = 5
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			g := group(2, "thundering_herd", "waiters", uint64(1), "batches", uint64(batches), "inter_batch", "1ms")
			took := stopBound + 1
			for try := 0; took > stopBound && try < stopTries; try++ {
				h := startMode(t, mode, g)
				await(t, "the last batch", func() bool { return h.SnapshotIterations()[0] == batches })
				time.Sleep(50 * time.Millisecond)
				if r := collect(t, h)[0]; !r.Completed || r.Iterations != batches || r.WakeLatency.Count != batches {
					t.Errorf("completed %v, %d passes, %d sleeps, want %d", r.Completed, r.Iterations, r.WakeLatency.Count, batches)
				}
				took = h.Timing().Collect
			}
			if took > stopBound {
				t.Errorf("stopping took %v at least, %d times", took, stopTries)
			}
		})
	}
}

func checkReport(t *testing.T, work *worker.Instance, r *report.Worker) {
	t.Helper()
	if !r.Completed || r.Partial || r.ExitInfo != nil {
		t.Errorf("worker %d: completed %v, partial %v, exit info %+v", r.Index, r.Completed, r.Partial, r.ExitInfo)
	}
	if r.WorkUnits == 0 || r.Iterations == 0 || r.WallNs == 0 || r.CPUNs == 0 || r.CPUsUsed == "" {
		t.Errorf("worker %d: no progress in %+v", r.Index, r)
	}
	// The run count stays 0 where nothing else wants the CPU.
	if r.Schedstat.CPUNs == 0 {
		t.Errorf("worker %d: schedstat %+v", r.Index, r.Schedstat)
	}
	checkPages(t, work, r)
	if len(r.SoftErrors) > 0 && os.Getuid() == 0 {
		t.Errorf("worker %d: soft errors %v", r.Index, r.SoftErrors)
	}
	typ, pos := work.Type, r.Index%work.GroupSize()
	if fanOut := strings.Contains(typ.Name, "fan_out"); r.IsMessenger != (fanOut && pos == 0) {
		t.Errorf("worker %d: is messenger %v", r.Index, r.IsMessenger)
	}
	for _, l := range []struct {
		name            string
		promised, wakes bool
		got             *report.Latency
	}{
		{"wake", typ.Wake, work.Wakes(pos), r.WakeLatency},
		{"cost", typ.Cost, typ.Cost, r.IterationCost},
		{"timer", typ.Timer, typ.Timer, r.TimerLatency},
	} {
		if l.promised != (l.got != nil) {
			t.Errorf("worker %d: %s latency promised %v, there %v", r.Index, l.name, l.promised, l.got != nil)
		}
		if l.got == nil {
			continue
		}
		if (l.got.Count > 0) != l.wakes && !(l.wakes && slices.Contains(mayNotWait, typ.Name)) {
			t.Errorf("worker %d: %d values of %s latency, role has them %v", r.Index, l.got.Count, l.name, l.wakes)
		}
		if l.got.Count > 0 && (l.got.Max < l.got.P999 || l.got.P50 < l.got.Min) {
			t.Errorf("worker %d: %s latency is out of order: %+v", r.Index, l.name, l.got)
		}
	}
}
