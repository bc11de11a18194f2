package check

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

func pointer[T any](v T) *T { return &v }

func ns(d time.Duration) *spec.Duration { return pointer(spec.Duration(d)) }

// latency is a population of values of one nanosecond's resolution.
func latency(values ...uint64) *report.Latency {
	l := new(report.Latency)
	for _, v := range values {
		l.Merge(&report.Latency{Min: v, Max: v, Sum: v, Buckets: []report.Bucket{{Lo: v, Width: 1, Count: 1}}})
	}
	l.Summarize()
	return l
}

// fair is a worker of group g with figures that are easy to reckon with: 1000
// units of work in a CPU second, 100 iterations in two seconds.
func fair(g, index int, edit func(w *report.Worker)) report.Worker {
	w := report.Worker{
		TID: 100 + 10*g + index, GroupIndex: g, Index: index, WorkType: "spin_wait", Completed: true,
		WorkUnits: 1000, Iterations: 100, WallNs: 2e9, CPUNs: 1e9, OffCPUNs: 1e9, Migrations: 5, CPUsUsed: "0-1",
		MaxGapNs: 1e6, NUMAPages: map[string]uint64{"0": 90, "1": 10}, NUMAMigrated: 20,
		Settings: map[string]report.Setting{"affinity": {Asked: "0-1", Got: "0-1"}},
	}
	if edit != nil {
		edit(&w)
	}
	return w
}

func oneGroup(checks *spec.Checks, edits ...func(w *report.Worker)) (*report.Report, *spec.Spec) {
	s := &spec.Spec{Version: 1, Checks: checks, Groups: []spec.Group{{Name: "g", Workers: len(edits), Work: spec.Work{Type: "spin_wait"}}}}
	r := &report.Report{Run: report.Run{Accelerator: "kvm", Topology: &report.Topology{Nodes: []report.TopologyNode{{ID: 0, CPUs: "0-1"}, {ID: 1, CPUs: "2-3"}}}}}
	for i, edit := range edits {
		r.Workers = append(r.Workers, fair(0, i, edit))
	}
	return r, s
}

// Every threshold with figures on it and on both sides of it, and where it
// cannot be judged.
func TestThresholds(t *testing.T) {
	same := func(*report.Worker) {}
	wake := func(values ...uint64) func(*report.Worker) {
		return func(w *report.Worker) { w.WakeLatency = latency(values...) }
	}
	hundred := make([]uint64, 100)
	for i := range hundred {
		hundred[i] = uint64(i + 1)
	}
	for _, tt := range []struct {
		name   string
		checks spec.Checks
		edits  []func(*report.Worker)
		want   report.Verdict
		value  float64
		why    string
	}{
		{"progress", spec.Checks{ZeroProgress: pointer(true)}, []func(*report.Worker){same}, report.Pass, 0, ""},
		{"no progress", spec.Checks{ZeroProgress: pointer(true)}, []func(*report.Worker){same, func(w *report.Worker) { w.WorkUnits = 0 }}, report.Fail, 1, "worker 1 of spin_wait (tid 101) did no work"},
		{"no worker ran", spec.Checks{ZeroProgress: pointer(true)}, []func(*report.Worker){func(w *report.Worker) { w.WallNs = 0 }}, report.Inconclusive, 0, "no worker has figures"},

		{"gap at limit", spec.Checks{MaxGap: ns(time.Millisecond)}, []func(*report.Worker){same}, report.Pass, 1e6, ""},
		{"gap above", spec.Checks{MaxGap: ns(time.Millisecond)}, []func(*report.Worker){same, func(w *report.Worker) { w.MaxGapNs, w.MaxGapCPU = 1e6+1, 3 }}, report.Fail, 1e6 + 1, "worker 1 of spin_wait (tid 101) had no turn for so long, on CPU 3"},

		{"spread at limit", spec.Checks{MaxOffCPU: pointer(25.0)}, []func(*report.Worker){same, func(w *report.Worker) { w.OffCPUNs = 1.5e9 }}, report.Pass, 25, ""},
		{"spread above", spec.Checks{MaxOffCPU: pointer(24.9)}, []func(*report.Worker){same, func(w *report.Worker) { w.OffCPUNs = 1.5e9 }}, report.Fail, 25, "worker 1 of spin_wait (tid 101) was off the CPU for 75% of its time, worker 0 of spin_wait (tid 100) for 50%"},
		{"spread of one", spec.Checks{MaxOffCPU: pointer(1.0)}, []func(*report.Worker){same}, report.Skip, 0, "one worker has no spread"},

		{"inside", spec.Checks{Isolation: pointer(true)}, []func(*report.Worker){same}, report.Pass, 0, ""},
		{"outside", spec.Checks{Isolation: pointer(true)}, []func(*report.Worker){same, func(w *report.Worker) { w.CPUsUsed = "1-2" }}, report.Fail, 1, "ran on CPUS"},
		{"inside what it got", spec.Checks{Isolation: pointer(true)}, []func(*report.Worker){func(w *report.Worker) { w.Settings = map[string]report.Setting{"affinity": {Got: "0-7"}} }}, report.Pass, 0, ""},
		{"place not known", spec.Checks{Isolation: pointer(true)}, []func(*report.Worker){func(w *report.Worker) { w.CPUsUsed = "" }}, report.Inconclusive, 0, "where worker 0 of spin_wait (tid 100) ran is not known"},
		{"bounds not known", spec.Checks{Isolation: pointer(true)}, []func(*report.Worker){func(w *report.Worker) { w.Settings = nil }}, report.Inconclusive, 0, "may run is not known"},

		{"rates at limit", spec.Checks{MaxWorkCV: pointer(0.5)}, []func(*report.Worker){same, func(w *report.Worker) { w.WorkUnits = 3000 }}, report.Pass, 0.5, ""},
		{"rates above", spec.Checks{MaxWorkCV: pointer(0.49)}, []func(*report.Worker){same, func(w *report.Worker) { w.WorkUnits = 3000 }}, report.Fail, 0.5, "mean 2000 units per CPU second over 2 workers"},
		{"rates of one", spec.Checks{MaxWorkCV: pointer(0.1)}, []func(*report.Worker){same}, report.Skip, 0, "one worker"},
		{"rates of none", spec.Checks{MaxWorkCV: pointer(0.1)}, []func(*report.Worker){func(w *report.Worker) { w.WorkUnits = 0 }, func(w *report.Worker) { w.WorkUnits = 0 }}, report.Inconclusive, 0, "no worker did any work"},
		{"no CPU time", spec.Checks{MaxWorkCV: pointer(0.1)}, []func(*report.Worker){same, func(w *report.Worker) { w.CPUNs = 0 }}, report.Inconclusive, 0, "worker 1 of spin_wait (tid 101) has no CPU time"},

		{"work at floor", spec.Checks{MinWorkRate: pointer(1000.0)}, []func(*report.Worker){same}, report.Pass, 1000, ""},
		{"work below", spec.Checks{MinWorkRate: pointer(1000.0)}, []func(*report.Worker){same, func(w *report.Worker) { w.WorkUnits = 999 }}, report.Fail, 999, "worker 1"},
		{"work of no CPU time", spec.Checks{MinWorkRate: pointer(1.0)}, []func(*report.Worker){func(w *report.Worker) { w.CPUNs = 0 }}, report.Inconclusive, 0, "no CPU time"},

		{"iterations at floor", spec.Checks{MinIterRate: pointer(50.0)}, []func(*report.Worker){same}, report.Pass, 50, ""},
		{"iterations below", spec.Checks{MinIterRate: pointer(50.0)}, []func(*report.Worker){func(w *report.Worker) { w.Iterations = 98 }}, report.Fail, 49, "worker 0"},

		{"p50 at limit", spec.Checks{MaxWakeP50: ns(50)}, []func(*report.Worker){wake(hundred...)}, report.Pass, 50, ""},
		{"p50 above", spec.Checks{MaxWakeP50: ns(49)}, []func(*report.Worker){wake(hundred...)}, report.Fail, 50, "of 100 wake latencies"},
		{"p99 at limit", spec.Checks{MaxWakeP99: ns(99)}, []func(*report.Worker){wake(hundred...)}, report.Pass, 99, ""},
		{"p99 above", spec.Checks{MaxWakeP99: ns(98)}, []func(*report.Worker){wake(hundred...)}, report.Fail, 99, "of 100 wake latencies"},
		{"p99 of all workers", spec.Checks{MaxWakeP99: ns(99)}, []func(*report.Worker){wake(hundred...), wake(500, 501)}, report.Fail, 500, "of 102 wake latencies"},
		{"p99.9 at limit", spec.Checks{MaxWakeP999: ns(100)}, []func(*report.Worker){wake(hundred...)}, report.Pass, 100, ""},
		{"p99.9 above", spec.Checks{MaxWakeP999: ns(99)}, []func(*report.Worker){wake(hundred...)}, report.Fail, 100, ""},
		{"longest at limit", spec.Checks{MaxWake: ns(100)}, []func(*report.Worker){wake(hundred...)}, report.Pass, 100, ""},
		{"longest above", spec.Checks{MaxWake: ns(99)}, []func(*report.Worker){wake(hundred...)}, report.Fail, 100, ""},
		{"no wakes", spec.Checks{MaxWakeP99: ns(99)}, []func(*report.Worker){wake()}, report.Inconclusive, 0, "no wake latency was recorded"},
		{"no such latency", spec.Checks{MaxWakeP99: ns(99)}, []func(*report.Worker){same}, report.Skip, 0, "its work types record no wake latency"},
		{"limit in the bucket", spec.Checks{MaxWakeP99: ns(1005)}, []func(*report.Worker){func(w *report.Worker) {
			w.WakeLatency = &report.Latency{Min: 1, Max: 5000, Buckets: []report.Bucket{{Lo: 1, Width: 1, Count: 1}, {Lo: 992, Width: 32, Count: 200}, {Lo: 4992, Width: 128, Count: 1}}}
		}}, report.Inconclusive, 1023, "it lies between 992ns and 1.023µs, and so does the limit"},
		{"timer at limit", spec.Checks{MaxTimerP99: ns(99)}, []func(*report.Worker){func(w *report.Worker) { w.TimerLatency = latency(hundred...) }}, report.Pass, 99, ""},
		{"timer above", spec.Checks{MaxTimerP99: ns(98)}, []func(*report.Worker){func(w *report.Worker) { w.TimerLatency = latency(hundred...) }}, report.Fail, 99, "of 100 timer latencies"},

		{"wakes at limit", spec.Checks{MaxWakeCV: pointer(0.5)}, []func(*report.Worker){wake(100), wake(300)}, report.Pass, 0.5, ""},
		{"wakes above", spec.Checks{MaxWakeCV: pointer(0.49)}, []func(*report.Worker){wake(100), wake(300)}, report.Fail, 0.5, "of 2 wake latencies, mean 200ns"},
		{"wakes of zero", spec.Checks{MaxWakeCV: pointer(0.49)}, []func(*report.Worker){wake(0)}, report.Inconclusive, 0, "the mean of the wake latencies is 0"},

		{"migrations at limit", spec.Checks{MaxMigration: pointer(0.05)}, []func(*report.Worker){same, same}, report.Pass, 0.05, ""},
		{"migrations above", spec.Checks{MaxMigration: pointer(0.049)}, []func(*report.Worker){same, same}, report.Fail, 0.05, "10 migrations in 200 iterations"},
		{"migrations of none", spec.Checks{MaxMigration: pointer(0.049)}, []func(*report.Worker){func(w *report.Worker) { w.Iterations = 0 }}, report.Inconclusive, 0, "no worker ended an iteration"},

		{"pages at floor", spec.Checks{MinLocality: pointer(0.9)}, []func(*report.Worker){same}, report.Pass, 0.9, ""},
		{"pages below", spec.Checks{MinLocality: pointer(0.91)}, []func(*report.Worker){same}, report.Fail, 0.9, "90 of 100 pages"},
		{"pages by policy", spec.Checks{MinLocality: pointer(0.5)}, []func(*report.Worker){func(w *report.Worker) { w.Settings["mem_policy"] = report.Setting{Asked: "bind:1,static_nodes"} }}, report.Fail, 0.1, "10 of 100 pages"},
		{"pages of two nodes", spec.Checks{MinLocality: pointer(1.0)}, []func(*report.Worker){func(w *report.Worker) { w.Settings["mem_policy"] = report.Setting{Asked: "interleave:0-1"} }}, report.Pass, 1, ""},
		{"no pages", spec.Checks{MinLocality: pointer(0.1)}, []func(*report.Worker){func(w *report.Worker) { w.NUMAPages = nil }}, report.Fail, 0, "no pages were counted"},
		{"pages of nowhere", spec.Checks{MinLocality: pointer(0.1)}, []func(*report.Worker){func(w *report.Worker) { w.Settings = nil }}, report.Inconclusive, 0, "belong is not known"},

		{"cross node at limit", spec.Checks{MaxCrossNode: pointer(0.1)}, []func(*report.Worker){same, same}, report.Pass, 0.1, ""},
		{"cross node above", spec.Checks{MaxCrossNode: pointer(0.09)}, []func(*report.Worker){same, same}, report.Fail, 0.1, "20 pages migrated"},
		{"cross node of none", spec.Checks{MaxCrossNode: pointer(0.1)}, []func(*report.Worker){func(w *report.Worker) { w.NUMAPages = nil }}, report.Inconclusive, 0, "no pages were counted"},
	} {
		r, s := oneGroup(&tt.checks, tt.edits...)
		Finish(r, s)
		if len(r.Checks) != 1 {
			t.Errorf("%s: %d checks: %+v", tt.name, len(r.Checks), r.Checks)
			continue
		}
		c := r.Checks[0]
		if c.Outcome != tt.want || c.Value < tt.value-1e-9 || c.Value > tt.value+1e-9 || !strings.Contains(strings.ToLower(c.Reason), strings.ToLower(tt.why)) || c.Scope != "group g" {
			t.Errorf("%s: %+v, want %s with %g: %s", tt.name, c, tt.want, tt.value, tt.why)
		}
		want := tt.want
		if want == report.Skip {
			want = report.Pass // its workers ran
		}
		if r.Verdict != want {
			t.Errorf("%s: verdict %s", tt.name, r.Verdict)
		}
		if lines := len(r.Failures); (lines == 1) != (tt.want == report.Fail) {
			t.Errorf("%s: failures %q", tt.name, r.Failures)
		}
	}
}

// A group without workers in the report has its checks, as inconclusive ones,
// and a threshold of false is none.
func TestNoChecks(t *testing.T) {
	r, s := oneGroup(&spec.Checks{ZeroProgress: pointer(false), Isolation: pointer(false), NotStuck: pointer(false)}, nil)
	if Finish(r, s); len(r.Checks) != 0 || r.Verdict != report.Pass {
		t.Errorf("%+v", r.Checks)
	}
	r, s = oneGroup(nil, nil)
	if Finish(r, s); len(r.Checks) != 0 || r.Verdict != report.Pass {
		t.Errorf("%+v", r.Checks)
	}
}

// not_stuck stands for three thresholds, each of which may be given.
func TestNotStuck(t *testing.T) {
	r, s := oneGroup(&spec.Checks{NotStuck: pointer(true), MaxGap: ns(time.Second), ZeroProgress: pointer(false)}, nil, nil)
	Finish(r, s)
	var got []string
	for _, c := range r.Checks {
		got = append(got, fmt.Sprintf("%s %g", c.Name, c.Limit))
	}
	if want := []string{"max_gap 1e+09", "max_off_cpu_spread_pct 15"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// Where time is not to be trusted, a missed threshold of timing says nothing,
// one that is met is met, and what is no matter of time fails.
func TestUnsoundTiming(t *testing.T) {
	for _, tt := range []struct {
		name   string
		accel  string
		steal  float64
		checks spec.Checks
		want   report.Verdict
		why    string
	}{
		{"kvm", "kvm", 0, spec.Checks{MaxGap: ns(1)}, report.Fail, "had no turn"},
		{"host", "none", 0, spec.Checks{MaxGap: ns(1)}, report.Fail, "had no turn"},
		{"tcg", "tcg,thread=single", 0, spec.Checks{MaxGap: ns(1)}, report.Inconclusive, "missed with 1.00ms, but this was timing under emulation (tcg,thread=single)"},
		{"unknown", report.AcceleratorUnknown, 0, spec.Checks{MaxGap: ns(1)}, report.Inconclusive, "not known whether it is emulated"},
		{"met under tcg", "tcg,thread=multi", 0, spec.Checks{MaxGap: ns(1e6)}, report.Pass, ""},
		{"enforced", "tcg,thread=single", 50, spec.Checks{MaxGap: ns(1), UnsoundTiming: spec.TimingEnforce}, report.Fail, "had no turn"},
		{"no matter of time", "tcg,thread=single", 50, spec.Checks{MinLocality: pointer(0.99)}, report.Fail, "90 of 100 pages"},
		{"steal at limit", "kvm", 2, spec.Checks{MaxGap: ns(1)}, report.Fail, ""},
		{"steal above", "kvm", 2.1, spec.Checks{MaxGap: ns(1)}, report.Inconclusive, "the host took 2.1% of the CPU time, more than 2%"},
		{"own limit of steal", "kvm", 4, spec.Checks{MaxGap: ns(1), MaxSteal: pointer(5.0)}, report.Fail, ""},
	} {
		r, s := oneGroup(&tt.checks, nil)
		r.Run.Accelerator, r.Run.StealPct = tt.accel, tt.steal
		Finish(r, s)
		if c := r.Checks[0]; c.Outcome != tt.want || r.Verdict != tt.want || !strings.Contains(c.Reason, tt.why) {
			t.Errorf("%s: %+v, verdict %s, want %s: %s", tt.name, c, r.Verdict, tt.want, tt.why)
		}
	}
}

// A group's own thresholds win over the spec's, one by one, and each group is
// judged by itself.
func TestGroups(t *testing.T) {
	s := &spec.Spec{Version: 1, Checks: &spec.Checks{MinWorkRate: pointer(1000.0), ZeroProgress: pointer(true)}, Groups: []spec.Group{
		{Name: "a", Workers: 1, Work: spec.Work{Type: "spin_wait"}},
		{Name: "b", Workers: 1, Work: spec.Work{Type: "spin_wait"}, Checks: &spec.Checks{MinWorkRate: pointer(1001.0)}},
	}}
	r := &report.Report{Workers: []report.Worker{fair(0, 0, nil), fair(1, 0, nil)}}
	Finish(r, s)
	got := map[string]report.Verdict{}
	for _, c := range r.Checks {
		got[c.Scope+" "+c.Name] = c.Outcome
	}
	want := map[string]report.Verdict{"group a zero_progress": report.Pass, "group a min_work_rate": report.Pass,
		"group b zero_progress": report.Pass, "group b min_work_rate": report.Fail}
	if !reflect.DeepEqual(got, want) || r.Verdict != report.Fail {
		t.Errorf("%v", got)
	}
	if want := []string{"group b: min_work_rate: 1000/s, limit 1001/s: worker 0 of spin_wait (tid 110)"}; !reflect.DeepEqual(r.Failures, want) {
		t.Errorf("%q", r.Failures)
	}
	Finish(r, s) // again: nothing doubles
	if len(r.Failures) != 1 || len(r.Checks) != 4 {
		t.Errorf("%q, %d checks", r.Failures, len(r.Checks))
	}
}

// Workers with slices are judged step by step too, each by its own figures and
// its cgroup's cpuset of that step; the time between steps is nobody's.
func TestSteps(t *testing.T) {
	r, s := oneGroup(&spec.Checks{ZeroProgress: pointer(true), Isolation: pointer(true)}, func(w *report.Worker) {
		w.Phases = []report.PhaseSlice{
			{Epoch: 0, WallNs: 1},
			{Epoch: 1, WallNs: 1e9, WorkUnits: 1000, CPUsUsed: "0"},
			{Epoch: report.EpochBetween, WallNs: 1},
			{Epoch: 2, WallNs: 1e9, CPUsUsed: "0-1"},
		}
		w.Settings = nil
	})
	r.Run.Phases = []report.Phase{{Epoch: 1, Name: "warm", Cpusets: map[string]string{"": "0"}}, {Epoch: 2, Cpusets: map[string]string{"": "1"}}}
	Finish(r, s)
	var got []string
	for _, c := range r.Checks {
		got = append(got, fmt.Sprintf("%s %s %s", c.Scope, c.Name, c.Outcome))
	}
	want := []string{
		"group g zero_progress pass", "group g isolation pass",
		"group g, warm zero_progress pass", "group g, warm isolation pass",
		"group g, step 2 zero_progress fail", "group g, step 2 isolation fail",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// The groups of a cgroup are judged as one by its thresholds, which win over the
// spec's; a group with thresholds of its own is judged by itself as well.
func TestCgroups(t *testing.T) {
	s, err := spec.Parse([]byte(`
version: 1
checks: {min_work_rate: 500}
cgroups:
  - name: a
    checks: {max_throughput_cv: 0.1}
    groups:
      - {name: x, workers: 1, work: spin_wait}
      - {name: y, workers: 1, work: spin_wait, checks: {min_work_rate: 4000}}
  - name: b
    cgroups: [{name: c, checks: {min_work_rate: 100}, groups: [{name: z, workers: 1, work: spin_wait}]}]
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	r := &report.Report{Workers: []report.Worker{fair(0, 0, nil), fair(1, 0, func(w *report.Worker) { w.WorkUnits = 3000 }), fair(2, 0, func(w *report.Worker) { w.WorkUnits = 200 })}}
	Finish(r, s)
	var got []string
	for _, c := range r.Checks {
		got = append(got, fmt.Sprintf("%s %s %g %g %s", c.Scope, c.Name, c.Value, c.Limit, c.Outcome))
	}
	want := []string{
		"cgroup a max_throughput_cv 0.5 0.1 fail", "cgroup a min_work_rate 1000 500 pass",
		"group y max_throughput_cv 0 0.1 skip", "group y min_work_rate 3000 4000 fail",
		"cgroup b/c min_work_rate 200 100 pass",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// Cgroups of one name in two steps are two, and each has the thresholds of its
// step over those of the backdrop.
func TestCgroupsOfSteps(t *testing.T) {
	s, err := spec.Parse([]byte(`
version: 1
duration: 2s
steps:
  - {name: one, cgroups: [{name: a, checks: {min_work_rate: 900}, groups: [{name: x, workers: 1, work: spin_wait}]}]}
  - {name: two, cgroups: [{name: a, checks: {min_work_rate: 1100}, groups: [{name: y, workers: 1, work: spin_wait}]}]}
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	r := &report.Report{Workers: []report.Worker{fair(0, 0, nil), fair(1, 0, nil)}}
	Finish(r, s)
	var got []string
	for _, c := range r.Checks {
		got = append(got, fmt.Sprintf("%s %g %s", c.Scope, c.Limit, c.Outcome))
	}
	if want := []string{"cgroup a of step 1 900 pass", "cgroup a of step 2 1100 fail"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// stepChecks has two cgroups and a group in the backdrop, and thresholds that hold
// in one step only.
const stepChecks = `
version: 1
duration: 2s
backdrop:
  cgroups:
    - {name: a, groups: [{name: x, workers: 1, work: spin_wait}, {name: y, workers: 1, work: spin_wait}]}
    - {name: b, groups: [{name: z, workers: 1, work: spin_wait}]}
steps:
  - {name: one, checks: {zero_progress: true}}
  - name: two
    checks_of: [{cgroup: a, checks: {min_work_rate: 600}}, {group: y, checks: {min_iteration_rate: 60}}]
    groups: [{name: new, workers: 1, work: spin_wait}]
`

// phased is a worker with a slice for each of two steps; in the second one it had
// so many units and passes in a second.
func phased(g, units, passes int) report.Worker {
	return fair(g, 0, func(w *report.Worker) {
		w.Phases = []report.PhaseSlice{
			{Epoch: 1, WallNs: 1e9, CPUNs: 1e9, WorkUnits: 500, Iterations: 50},
			{Epoch: 2, WallNs: 1e9, CPUNs: 1e9, WorkUnits: uint64(units), Iterations: uint64(passes)},
		}
	})
}

// Thresholds of a step judge that step alone, and those of a cgroup or a group in
// it nothing else.
func TestStepChecks(t *testing.T) {
	s, err := spec.Parse([]byte(stepChecks), "x")
	if err != nil {
		t.Fatal(err)
	}
	phases := []report.Phase{{Epoch: 1, Name: "one"}, {Epoch: 2, Name: "two"}}
	for _, tt := range []struct {
		name    string
		workers []report.Worker
		want    []string
	}{
		{"all", []report.Worker{phased(0, 700, 10), phased(1, 500, 50), phased(2, 0, 0), fair(3, 0, nil)}, []string{
			"cgroup a, one zero_progress 0 0 pass",
			"cgroup a, two min_work_rate 500 600 fail",
			"group y, two min_work_rate 500 600 fail",
			"group y, two min_iteration_rate 50 60 fail",
			"cgroup b, one zero_progress 0 0 pass",
		}},
		// Of those that should have run in the step none has figures of it.
		{"dead", []report.Worker{fair(0, 0, nil), fair(1, 0, nil), phased(2, 0, 0)}, []string{
			"cgroup a, two min_work_rate 0 600 inconclusive",
			"group y, two min_work_rate 0 600 inconclusive",
			"group y, two min_iteration_rate 0 60 inconclusive",
			"cgroup b, one zero_progress 0 0 pass",
		}},
	} {
		r := &report.Report{Run: report.Run{Accelerator: "kvm", Phases: phases}, Workers: tt.workers}
		Finish(r, s)
		var got []string
		for _, c := range r.Checks {
			got = append(got, fmt.Sprintf("%s %s %g %g %s", c.Scope, c.Name, c.Value, c.Limit, c.Outcome))
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

// A group that an operation moved may run where it was moved to, from then on.
func TestMoved(t *testing.T) {
	for name, tt := range map[string]struct {
		second string // CPUs of the second step
		want   string
	}{
		"where it was moved to":  {"2", "pass pass pass"},
		"where it was born":      {"0", "pass pass fail"},
		"where it was never let": {"3", "fail pass fail"},
	} {
		r, s := oneGroup(&spec.Checks{Isolation: pointer(true)}, func(w *report.Worker) {
			w.CPUsUsed = "0," + tt.second
			w.Phases = []report.PhaseSlice{{Epoch: 1, WallNs: 1, CPUsUsed: "0"}, {Epoch: 2, WallNs: 1, CPUsUsed: tt.second}}
			w.Settings = map[string]report.Setting{"affinity": {Asked: "0-1", Got: "0-1"}}
		})
		r.Run.Phases = []report.Phase{{Epoch: 1, Cpusets: map[string]string{"": "0"}}, {Epoch: 2, Cpusets: map[string]string{"": "0"}, Allowed: map[string]string{"g": "2"}}}
		Finish(r, s)
		var got []string
		for _, c := range r.Checks {
			got = append(got, string(c.Outcome))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %s: %+v", name, got, tt.want, r.Checks)
		}
	}
}
