package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scx"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/topology"
)

func cgroupRoot(t *testing.T) string {
	t.Helper()
	root, _, err := spawn.Cgroup2()
	if err != nil {
		unable(t, "%v", err)
	}
	return root
}

// played is what came of a spec.
type played struct {
	Result
	workers []report.Worker
	events  []Event
	spec    *spec.Spec
}

// play runs a spec and checks that it leaves nothing behind.
func play(t *testing.T, ctx context.Context, text string, g guard) played {
	t.Helper()
	p := playWith(t, ctx, text, g, func(Event) {})
	leftovers(t)
	return p
}

// playWith runs a spec and tells of what happens meanwhile.
func playWith(t *testing.T, ctx context.Context, text string, g guard, tell func(Event)) played {
	t.Helper()
	s, err := Parse([]byte(text), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	p := played{spec: s}
	var mu sync.Mutex
	sink := Sink{
		Worker:   func(w *report.Worker) error { p.workers = append(p.workers, *w); return nil },
		Event:    func(e Event) { p.events = append(p.events, e); tell(e) },
		Progress: func(time.Duration, []Progress) { mu.Lock(); defer mu.Unlock() },
	}
	if g == nil {
		p.Result, err = Run(ctx, s, report.Run{}, sink)
	} else {
		p.Result, err = runGuarded(ctx, g, s, report.Run{}, sink)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.Workers != len(p.workers) {
		t.Errorf("%d workers said, %d delivered", p.Workers, len(p.workers))
	}
	return p
}

// leftovers fails if a cgroup of a run is left, or a controller that it enabled.
func leftovers(t *testing.T) {
	t.Helper()
	root, _, err := spawn.Cgroup2()
	if err != nil {
		return
	}
	left, _ := filepath.Glob(fmt.Sprintf("%s/guestinit-%d*", root, os.Getpid()))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if on, _ := fields(root, "cgroup.subtree_control"); os.Getpid() == 1 && len(on) > 0 {
		t.Errorf("controllers are left on: %v", on)
	}
}

func (p *played) passes(t *testing.T) {
	t.Helper()
	for _, f := range p.Failures {
		t.Errorf("failure: %s", f)
	}
	for _, w := range p.workers {
		if !w.Completed || w.WorkUnits == 0 {
			t.Errorf("group %d worker %d: completed %v, %d units, %+v", w.GroupIndex, w.Index, w.Completed, w.WorkUnits, w.ExitInfo)
		}
	}
	if t.Failed() {
		t.Logf("notes: %s", strings.Join(p.Notes, "\n"))
	}
}

// TestExamples runs every spec of examples/ that passes.
func TestExamples(t *testing.T) {
	dir := "../examples"
	if os.Getpid() == 1 {
		dir = "/examples"
	}
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d examples in %s, %v", len(files), dir, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if name == "failing-worker.yaml" { // fails on purpose; e2e runs it
			continue
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := spec.Parse(text, name)
			if err != nil {
				t.Fatal(err)
			}
			if s.Scheduler != nil {
				return // e2e boots it with a scheduler in the image
			}
			tree := newTree(s, t.Logf)
			s.EachCgroup(func(*spec.Cgroup) { controllers(t, tree.needs...) })
			if lacksNode(t, s) {
				return // e2e boots it with two
			}
			s.EachOp(func(o *spec.Op) {
				if o.RunProgram != nil {
					if _, err := os.Stat(o.RunProgram.Path); err != nil {
						unable(t, "%v", err)
					}
				}
			})
			programs := slices.ContainsFunc(s.Placed(), func(g spec.Placed) bool { return g.Work.Type == "exec" })
			if programs && os.Getpid() == 1 {
				return // this image has only what the others need
			}
			p := play(t, t.Context(), string(text), nil)
			p.passes(t)
		})
	}
}

// lacksNode tells whether a spec names a NUMA node that this machine has not.
func lacksNode(t *testing.T, s *spec.Spec) (lacks bool) {
	t.Helper()
	machine, err := topology.Read()
	if err != nil {
		t.Fatal(err)
	}
	s.EachCgroup(func(c *spec.Cgroup) {
		if c.Cpuset != nil && c.Cpuset.NUMA != nil {
			_, err := machine.Cpuset(c.Cpuset)
			lacks = lacks || err != nil
		}
	})
	return lacks
}

// TestPhases: what a worker of the backdrop measured is cut into slices that add
// up, one per step and one between; groups of steps run in theirs only.
func TestPhases(t *testing.T) {
	p := play(t, t.Context(), `
version: 1
duration: 1s
backdrop:
  groups: [{name: base, workers: 2, work: pipe_io}, {name: timer, workers: 1, work: {type: timer_latency, interval: 2ms}}]
steps:
  - {name: one, hold: 400ms}
  - {name: two, hold: 30%, groups: [{name: extra, workers: 1, work: spin_wait}]}
  - {name: three, groups: [{name: extra, workers: 2, work: bursty}]}
`, nil)
	p.passes(t)
	if len(p.workers) != 6 {
		t.Fatalf("%d workers", len(p.workers))
	}
	var order []int
	for _, w := range p.workers {
		order = append(order, w.GroupIndex)
		if w.GroupIndex >= 2 {
			if len(w.Phases) != 0 {
				t.Errorf("a worker of a step has %d slices", len(w.Phases))
			}
			continue
		}
		var epochs []uint32
		sums := make([]uint64, len(additive(&report.PhaseSlice{})))
		for _, s := range w.Phases {
			epochs = append(epochs, s.Epoch)
			for j, v := range additive(&s) {
				sums[j] += v
			}
		}
		between := uint32(spawn.BetweenPhases)
		want := []uint32{0, 1, between, 2, between, 3, between}
		whole := w.Slice()
		if !slices.Equal(epochs, want) || !slices.Equal(sums, additive(&whole)) {
			t.Errorf("epochs %v, the slices have %v together, the worker %v", epochs, sums, additive(&whole))
			for _, s := range w.Phases {
				t.Logf("epoch %d: %d ms, %d passes, %d ms on CPU", s.Epoch, s.WallNs/1e6, s.Iterations, s.CPUNs/1e6)
			}
		}
		if one := w.Phases[slices.IndexFunc(w.Phases, func(s report.PhaseSlice) bool { return s.Epoch == 1 })]; one.WallNs < 300e6 || one.WorkUnits == 0 {
			t.Errorf("slice of step one: %d ns, %d units", one.WallNs, one.WorkUnits)
		}
	}
	if !slices.Equal(order, []int{2, 3, 3, 0, 0, 1}) {
		t.Errorf("groups are collected as %v", order)
	}
	if g := p.spec.Placed(); p.spec.StepNumber(g[0].Step) != 0 || p.spec.StepNumber(g[2].Step) != 2 || p.spec.StepNumber(g[3].Step) != 3 || g[3].Name != "extra" {
		t.Errorf("groups: %+v", g)
	}
	var names []string
	for i, ph := range p.Run.Phases {
		names = append(names, ph.Name)
		if ph.Epoch != uint32(i+1) || ph.EndNs-ph.StartNs < 250e6 {
			t.Errorf("phase %+v", ph)
		}
	}
	if !slices.Equal(names, []string{"one", "two", "three"}) || len(p.events) != 6 {
		t.Errorf("phases %v, events %+v", names, p.events)
	}
}

// additive is the figures of a slice of which all slices together are the worker's.
// Time off the CPU is none: that of a slice is not below 0.
func additive(s *report.PhaseSlice) []uint64 {
	figures := []uint64{s.WallNs, s.CPUNs, s.WorkUnits, s.Iterations, s.Migrations, s.Schedstat.CPUNs, s.Schedstat.RunDelayNs, s.Schedstat.RunCount, s.NUMAMigrated}
	for _, l := range []*report.Latency{s.WakeLatency, s.TimerLatency} {
		if l == nil {
			l = &report.Latency{}
		}
		figures = append(figures, l.Count, l.Sum)
	}
	return figures
}

// TestCgroupOps freezes, moves, stops and removes, with what cgroup v2 can do
// without controllers.
func TestCgroupOps(t *testing.T) {
	controllers(t)
	p := play(t, t.Context(), `
version: 1
duration: 1500ms
backdrop:
  cgroups:
    - {name: a, groups: [{name: frozen, workers: 1, work: spin_wait}]}
    - {name: outer, cgroups: [{name: b}, {name: gone, groups: [{name: short, workers: 1, work: spin_wait}]}]}
  ops: [{freeze: a}]
steps:
  - {name: cold}
  - {name: warm, ops: [{thaw: a}, {move_tasks: {from: a, to: outer/b}}, {remove_cgroup: a}]}
  - name: late
    ops:
      - add_cgroup: {name: outer/c, groups: [{name: new, workers: 1, work: spin_wait}]}
      - spawn: {cgroup: outer/c, groups: [{name: newer, workers: 1, work: spin_wait}]}
      - stop_cgroup: outer/gone
      - freeze: outer
`, nil)
	p.passes(t)
	for _, w := range p.workers {
		if w.GroupIndex != 0 {
			continue
		}
		if got := w.Settings["cgroup"].Got; got != fmt.Sprintf("/guestinit-%d/a", os.Getpid()) {
			t.Errorf("born in %s", got)
		}
		// It was frozen in the first step and sees nothing of it.
		if w.MaxGapNs < 400e6 {
			t.Errorf("longest gap %d ns; was it frozen?", w.MaxGapNs)
		}
	}
	if len(p.workers) != 4 {
		t.Errorf("%d workers", len(p.workers))
	}
}

// TestLimits: quotas, weights and cpusets do what they say.
func TestLimits(t *testing.T) {
	controllers(t, "cpu", "cpuset", "memory", "pids")
	p := play(t, t.Context(), `
version: 1
duration: 3s
cgroups:
  - {name: quota, cpu.max: 20%, cpuset: "0", groups: [{name: quota, workers: 1, work: spin_wait}]}
  - {name: left, cpuset: {disjoint: {index: 1, of: 2}}, groups: [{name: left, workers_pct: 200%, work: yield_heavy, affinity: single_cpu}]}
  - {name: outer, cpu.weight: 10, memory.max: 64M, pids.max: 50, cgroups: [{name: in, memory.high: 32M, groups: [{name: in, workers: 1, work: spin_wait}]}]}
`, nil)
	p.passes(t)
	if len(p.workers) != 4 {
		t.Fatalf("%d workers", len(p.workers))
	}
	if w := p.workers[0]; float64(w.CPUNs) > 0.35*float64(w.WallNs) || w.CPUsUsed != "0" {
		t.Errorf("under a quota of 20%%: %d of %d ns on %s", w.CPUNs, w.WallNs, w.CPUsUsed)
	}
	for _, w := range p.workers[1:3] {
		if w.CPUsUsed != "1" {
			t.Errorf("the other half ran on %s", w.CPUsUsed)
		}
	}
	if ph := p.Run.Phases; len(ph) != 1 || ph[0].Cpusets["quota"] != "0" || ph[0].Cpusets["left"] != "1" {
		t.Errorf("phases: %+v", ph)
	}
}

// TestCpusetOps: sets that change between steps and in a loop.
func TestCpusetOps(t *testing.T) {
	controllers(t, "cpuset")
	p := play(t, t.Context(), `
version: 1
duration: 2s
backdrop:
  cgroups:
    - {name: a, cpuset: "0", groups: [{name: a, workers: 1, work: yield_heavy}]}
    - {name: b, cpuset: "1", groups: [{name: b, workers: 1, work: yield_heavy}]}
steps:
  - {name: as-made}
  - {name: swapped, ops: [{swap_cpusets: [a, b]}]}
  - {name: same, ops: [{set_cpuset: {cgroup: a, cpuset: 0}}, {clear_cpuset: b}, {set_affinity: {group: b, affinity: 0}}]}
  - {name: loop, hold: {loop: 50ms}, ops: [{swap_cpusets: [a, b]}]}
`, nil)
	p.passes(t)
	want := map[int][]string{0: {"0", "1", "0"}, 1: {"1", "0", "0"}}
	for _, w := range p.workers {
		for _, s := range w.Phases {
			if s.Epoch >= 1 && s.Epoch <= 3 && s.CPUsUsed != want[w.GroupIndex][s.Epoch-1] {
				t.Errorf("group %d ran on %s in step %d", w.GroupIndex, s.CPUsUsed, s.Epoch)
			}
		}
	}
	if len(p.Run.Phases) != 4 {
		t.Fatalf("%d phases; failures %q", len(p.Run.Phases), p.Failures)
	}
	turns := 0
	for _, e := range p.events {
		if e.Kind == EventOp && e.Step == 4 {
			turns++
		}
	}
	if turns < 4 || p.Run.Phases[3].Cpusets["a"] != "0-1" {
		t.Errorf("%d turns, phase %+v", turns, p.Run.Phases[3])
	}
}

// TestFailures: what goes wrong in a step is a failure of the run; what ran is
// reported, and nothing is left.
func TestFailures(t *testing.T) {
	const head = "version: 1\nduration: 400ms\nbackdrop: {groups: [{name: base, workers: 1, work: spin_wait}]}\nsteps:\n- {name: fine}\n- "
	for name, tt := range map[string]struct {
		step, want string
		needs      []string
	}{
		"no such program":   {"{name: bad, ops: [{run_program: /nowhere/x}]}", "step bad: ops[0].run_program: start /nowhere/x: no such file or directory", nil},
		"program fails":     {"{name: bad, ops: [{run_program: {path: PROGRAM, args: [-test.bogus]}}, {wait_program: {program: NAME, timeout: 20s}}]}", "program NAME: exit status 2", nil},
		"program hangs":     {"{name: bad, ops: [{run_program: {path: PROGRAM, args: [-test.run=TestHang], env: [HANG=1]}}, {wait_program: {program: NAME, timeout: 50ms}}]}", "step bad: ops[1].wait_program: program NAME did not end within 50ms", nil},
		"no such CPU":       {"{name: bad, cgroups: [{name: x, cpuset: 4000, groups: [{name: y, workers: 1, work: spin_wait}]}]}", "step bad: cgroup x: ", []string{"cpuset"}},
		"no such node":      {"{name: bad, cgroups: [{name: x, cpuset.mems: 60, groups: [{name: y, workers: 1, work: spin_wait}]}]}", "cpuset.mems", []string{"cpuset"}},
		"too many tasks":    {"{name: bad, cgroups: [{name: x, pids.max: 1, groups: [{name: y, workers: 3, work: spin_wait}]}]}", "pids.max of the cgroup", []string{"pids"}},
		"affinity outside":  {"{name: bad, cgroups: [{name: x, cpuset: 0, groups: [{name: y, workers: 1, work: spin_wait, affinity: 1}]}]}", "step bad: group y: ", []string{"cpuset"}},
		"siblings of none":  {"{name: bad, cgroups: [{name: x, cpuset: 0, groups: [{name: y, workers: 2, work: spin_wait, affinity: smt_sibling_pair}]}]}", "step bad: group y: ", []string{"cpuset"}},
		"set a dead cpuset": {"{name: bad, cgroups: [{name: x, groups: [{name: y, workers: 1, work: spin_wait}]}], ops: [{set_cpuset: {cgroup: x, cpuset: {numa: 63}}}]}", "step bad: ops[0].set_cpuset: ", []string{"cpuset"}},
	} {
		t.Run(name, func(t *testing.T) {
			if len(tt.needs) > 0 {
				controllers(t, tt.needs...)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			put := strings.NewReplacer("PROGRAM", self, "NAME", filepath.Base(self))
			p := play(t, t.Context(), head+put.Replace(tt.step)+"\n- {name: never}\n", nil)
			if !strings.Contains(strings.Join(p.Failures, "\n"), put.Replace(tt.want)) {
				t.Errorf("failures %q, want %s", p.Failures, put.Replace(tt.want))
			}
			i := slices.IndexFunc(p.workers, func(w report.Worker) bool { return w.GroupIndex == 0 })
			if i < 0 || !p.workers[i].Completed {
				t.Errorf("the backdrop has no report: %d workers", len(p.workers))
			}
		})
	}
}

// TestHang is a program that does not end, for TestFailures.
func TestHang(t *testing.T) {
	if os.Getenv("HANG") != "" {
		time.Sleep(time.Minute)
	}
}

// TestNoControllers: the error says what to do.
func TestNoControllers(t *testing.T) {
	if got := missing("/x", "warp"); !strings.Contains(got, "the kernel has no controller warp") {
		t.Error(got)
	}
	for file, want := range map[string]string{"cpuset.cpus": "CONFIG_CPUSETS", "cpu.max": "CONFIG_CFS_BANDWIDTH", "cpu.weight": "CONFIG_FAIR_GROUP_SCHED", "cpu.uclamp.min": "CONFIG_UCLAMP_TASK_GROUP",
		"memory.high": "CONFIG_MEMCG", "memory.swap.max": "CONFIG_SWAP", "io.weight": "CONFIG_BLK_CGROUP_IOCOST", "pids.max": "CONFIG_CGROUP_PIDS"} {
		if got := kernelOption(file); got != want {
			t.Errorf("%s: %s", file, got)
		}
	}
}

// TestCancelled: a run that is told to end reports what there is, and the steps
// after are not played.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("enough"))
	defer cancel()
	p := play(t, ctx, "version: 1\nduration: 60s\nbackdrop: {groups: [{workers: 1, work: spin_wait}]}\nsteps: [{groups: [{workers: 1, work: spin_wait}]}, {groups: [{workers: 1, work: spin_wait}]}]\n", nil)
	if len(p.workers) != 2 || !p.workers[0].Completed || !p.workers[1].Completed {
		t.Errorf("%d workers: %+v", len(p.workers), p.workers)
	}
	if !strings.Contains(strings.Join(p.Notes, "\n"), "stopped early: enough") {
		t.Errorf("notes %q", p.Notes)
	}
}

// TestNoWorkerLeft: a hold ends when all that ran in it has.
func TestNoWorkerLeft(t *testing.T) {
	begin := time.Now()
	p := play(t, t.Context(), "version: 1\nduration: 1m\nsteps: [{name: x, groups: [{workers: 1, work: {type: fault_injection, kind: exit, after: 10ms}}]}]\n", nil)
	if took := time.Since(begin); took > 30*time.Second || len(p.workers) != 1 || p.workers[0].Completed {
		t.Errorf("took %v, %+v", took, p.workers)
	}
}

// fakeGuard fails where it is told to.
type fakeGuard struct {
	start, stop error
	done        chan struct{}
	stopped     int
}

func (g *fakeGuard) Start(context.Context) error { return g.start }
func (g *fakeGuard) Done() <-chan struct{}       { return g.done }
func (g *fakeGuard) Stop() error                 { g.stopped++; return g.stop }
func (g *fakeGuard) Report() *report.Scheduler   { return &report.Scheduler{Name: "fake"} }

// TestGuard: the guard is in place around all steps, and its failure is the run's.
func TestGuard(t *testing.T) {
	const text = "version: 1\nduration: 200ms\nsteps: [{name: a, groups: [{name: x, workers: 1, work: spin_wait}]}, {name: b, groups: [{name: x, workers: 1, work: spin_wait}]}]\n"
	gone := errors.New("ejected")
	for name, tt := range map[string]struct {
		guard   fakeGuard
		workers int
		stops   int
		want    string // in the failures; "" for none
	}{
		"refused": {fakeGuard{start: &scx.Failure{Reason: "ejected"}}, 0, 0, "ejected"},
		"at end":  {fakeGuard{stop: gone}, 2, 1, "ejected"},
		"works":   {fakeGuard{}, 2, 1, ""},
	} {
		p := play(t, t.Context(), text, &tt.guard)
		said := strings.Join(p.Failures, "\n")
		if len(p.workers) != tt.workers || tt.guard.stopped != tt.stops || (said != "") != (tt.want != "") || !strings.Contains(said, tt.want) {
			t.Errorf("%s: %d workers, %d stops, failures %q", name, len(p.workers), tt.guard.stopped, p.Failures)
		}
		if s := p.Run.Scheduler; s == nil || s.Name != "fake" {
			t.Errorf("%s: the report says %+v", name, s)
		}
	}
	late := &failsLater{fakeGuard{stop: gone, done: make(chan struct{})}}
	p := play(t, t.Context(), strings.Replace(text, "200ms", "1m", 1), late)
	if len(p.workers) != 1 || !slices.Contains(p.Failures, "ejected") {
		t.Errorf("it fails in the first step: %d workers, %q", len(p.workers), p.Failures)
	}
}

// failsLater fails 100 ms after its start.
type failsLater struct{ fakeGuard }

func (g *failsLater) Start(context.Context) error {
	time.AfterFunc(100*time.Millisecond, func() { close(g.done) })
	return nil
}
