package report

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// phasedReport is a run of two steps: a group of the backdrop in one cgroup with
// slices of both, and one of step 2 in another.
func phasedReport() *Report {
	r := &Report{SchemaVersion: SchemaVersion, Run: sampleRun()}
	r.Run.Phases = []Phase{{Epoch: 1, Name: "calm", EndNs: 1e9, Cpusets: map[string]string{"a": "0"}}, {Epoch: 2, StartNs: 1e9, EndNs: 2e9}}
	slice := func(epoch uint32, iterations uint64, cpus string, wake *Latency) PhaseSlice {
		return PhaseSlice{Epoch: epoch, WallNs: 1e9, CPUNs: 5e8, OffCPUNs: 5e8, WorkUnits: 10 * iterations, Iterations: iterations,
			Migrations: iterations / 100, CPUsUsed: cpus, MaxGapNs: 1000 * iterations, Schedstat: Schedstat{CPUNs: 5e8, RunDelayNs: 1e6, RunCount: 10}, WakeLatency: wake}
	}
	for i := range 2 {
		r.Workers = append(r.Workers, Worker{
			TID: 300 + i, Index: i, WorkType: "pipe_io", Completed: true, WallNs: 2e9, CPUNs: 1e9, OffCPUNs: 1e9, WorkUnits: 4000, Iterations: 400, CPUsUsed: "0-1",
			WakeLatency: population(1000, 10, 400),
			Phases: []PhaseSlice{
				slice(0, 7, "0", nil), slice(1, 100, "0", population(1000, 10, 100)), slice(EpochBetween, 3, "0", nil), slice(2, 300, "0-1", population(2000, 10, 300)),
			},
		})
	}
	r.Workers = append(r.Workers, Worker{TID: 310, GroupIndex: 1, WorkType: "spin_wait", Completed: true, WallNs: 1e9, CPUNs: 9e8, OffCPUNs: 1e8,
		WorkUnits: 5, Iterations: 5, CPUsUsed: "1"}) // a step's own: all of it is the step's
	r.Aggregate([]GroupInfo{{Name: "pipes", WorkType: "pipe_io", Cgroup: "a", Workers: 2}, {Name: "noise", WorkType: "spin_wait", Cgroup: "b", Step: 2, Workers: 1}})
	r.Checks = []Check{
		{Name: "zero_progress", Scope: "cgroup a", Outcome: Pass, Unit: UnitWorkers},
		{Name: "max_gap", Scope: "cgroup a, calm", Outcome: Inconclusive, Value: 1e5, Limit: 1e3, Unit: UnitNs, Reason: "missed with 100us, but this was timing under emulation (tcg,thread=single)"},
		{Name: "min_work_rate", Scope: "group noise", Outcome: Fail, Value: 5.5, Limit: 1e6, Unit: UnitPerSecond, Reason: "worker 0 of spin_wait (tid 310)"},
		{Name: "max_off_cpu_spread_pct", Scope: "group noise", Outcome: Skip, Limit: 15, Unit: UnitPercent, Reason: "one worker has no spread"},
		{Name: "max_migration_ratio", Scope: "cgroup a", Outcome: Pass, Value: 0.0125, Limit: 0.05},
	}
	r.Judge()
	return r
}

// Each phase pools the slices of its epoch, exactly, and the time between steps
// is in none.
func TestPhases(t *testing.T) {
	r := phasedReport()
	if len(r.Phases) != 2 || r.Phases[0].Name != "calm" || r.Phases[1].Name != "step 2" {
		t.Fatalf("%+v", r.Phases)
	}
	calm, second := r.Phases[0].Groups, r.Phases[1].Groups
	if len(calm) != 1 || len(second) != 2 {
		t.Fatalf("%d groups in the first, %d in the second", len(calm), len(second))
	}
	g := calm[0]
	if g.Name != "pipes" || g.Cgroup != "a" || g.Workers != 2 || g.Iterations != 200 || g.IterationsPerS != 200 || g.WorkUnits != 2000 ||
		g.Migrations != 2 || g.CPUsUsed != "0" || g.MaxGapNs != 100_000 || g.RunDelayNs != 2e6 || g.WallNs != 2e9 {
		t.Errorf("%+v", g)
	}
	if g.WakeLatency.Count != 200 || g.WakeLatency.Min != 1000 || g.WakeLatency.Max != 1990 {
		t.Errorf("%+v", g.WakeLatency)
	}
	if g := second[0]; g.Iterations != 600 || g.WakeLatency.Min != 2000 || g.CPUsUsed != "0-1" {
		t.Errorf("%+v", g)
	}
	if g := second[1]; g.Name != "noise" || g.Step != 2 || g.Workers != 1 || g.Iterations != 5 || g.WallNs != 1e9 || g.CPUsUsed != "1" {
		t.Errorf("%+v", g)
	}
	if len(r.Cgroups) != 2 || r.Cgroups[0].Name != "a" || r.Cgroups[0].Iterations != 800 || r.Cgroups[0].Workers != 2 || r.Cgroups[1].WorkType != "spin_wait" {
		t.Errorf("%+v", r.Cgroups)
	}
	before := *r
	r.Aggregate(infos(r)) // again: nothing doubles
	if !reflect.DeepEqual(before.Phases, r.Phases) || !reflect.DeepEqual(before.Cgroups, r.Cgroups) {
		t.Error("a second Aggregate differs")
	}
}

// Groups of one cgroup are pooled, whatever they run.
func TestCgroupOfSeveral(t *testing.T) {
	r := &Report{Workers: []Worker{
		{WorkType: "spin_wait", WallNs: 1e9, Iterations: 5, CPUsUsed: "0"}, {GroupIndex: 1, WorkType: "pipe_io", WallNs: 1e9, Iterations: 7, CPUsUsed: "2"}, {GroupIndex: 2, WorkType: "pipe_io"}}}
	r.Aggregate([]GroupInfo{{Name: "x", Cgroup: "c"}, {Name: "y", Cgroup: "c"}, {Name: "z"}})
	if len(r.Cgroups) != 1 {
		t.Fatalf("%+v", r.Cgroups)
	}
	if c := r.Cgroups[0]; c.WorkType != "several" || c.Iterations != 12 || c.CPUsUsed != "0,2" || c.Workers != 2 {
		t.Errorf("%+v", c)
	}
}

func TestPhasedGolden(t *testing.T) {
	r := phasedReport()
	var table, js bytes.Buffer
	if err := WriteTable(&table, r, 0); err != nil {
		t.Fatal(err)
	}
	golden(t, "phased.table", table.Bytes())
	if err := WriteJSON(&js, r, false); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(js.Bytes(), []byte(`"buckets"`)) || bytes.Contains(js.Bytes(), []byte(`"samples"`)) {
		t.Error("populations in a report without samples")
	}
	golden(t, "phased.json", js.Bytes())
}

// A percentile is known to its bucket, within the exact bounds.
func TestPercentile(t *testing.T) {
	l := &Latency{Min: 1005, Max: 5000, Sum: 1, Buckets: []Bucket{{Lo: 992, Width: 32, Count: 98}, {Lo: 2048, Width: 64, Count: 1}, {Lo: 4992, Width: 128, Count: 1}}}
	l.Summarize()
	for _, tt := range []struct {
		perMille int
		lo, hi   uint64
	}{{500, 1005, 1023}, {980, 1005, 1023}, {990, 2048, 2111}, {999, 4992, 5000}, {1000, 5000, 5000}, {0, 1005, 1023}} {
		if lo, hi := l.Percentile(tt.perMille); lo != tt.lo || hi != tt.hi {
			t.Errorf("%d: %d to %d, want %d to %d", tt.perMille, lo, hi, tt.lo, tt.hi)
		}
	}
}

// A guest that lies about phases or topology is found out.
func TestBadRun(t *testing.T) {
	for name, edit := range map[string]func(*Run){
		"epochs":        func(r *Run) { r.Phases = []Phase{{Epoch: 2}, {Epoch: 1}} },
		"times":         func(r *Run) { r.Phases = []Phase{{StartNs: 2, EndNs: 1}} },
		"allowed":       func(r *Run) { r.Phases = []Phase{{Allowed: map[string]string{"a": "none"}}} },
		"cpuset":        func(r *Run) { r.Phases = []Phase{{Cpusets: map[string]string{"a": "none"}}} },
		"steal":         func(r *Run) { r.StealPct = 101 },
		"node":          func(r *Run) { r.Topology = &Topology{Nodes: []TopologyNode{{ID: -1}}} },
		"CPUs of nodes": func(r *Run) { r.Topology = &Topology{Nodes: []TopologyNode{{CPUs: "x"}}} },
		"caches":        func(r *Run) { r.Topology = &Topology{LLCs: []string{"9999999"}} },
		"cores":         func(r *Run) { r.Topology = &Topology{Cores: []string{"3-1"}} },
	} {
		r := sampleReport()
		edit(&r.Run)
		if _, err := Decode(bytes.NewReader(encode(t, r)), Limits{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := phasedReport()
	r.Workers[0].Phases[1].CPUsUsed = "x"
	if _, err := Decode(bytes.NewReader(encode(t, r)), Limits{}); err == nil {
		t.Error("a slice on CPU x: accepted")
	}
}

// Where each group has one step only, no table per step repeats that of all groups.
func TestTableOfStepsAlone(t *testing.T) {
	r := phasedReport()
	r.Workers = r.Workers[2:]
	r.Aggregate(infos(r))
	var b bytes.Buffer
	if err := WriteTable(&b, r, 100); err != nil {
		t.Fatal(err)
	}
	if len(r.Phases) != 1 || strings.Contains(b.String(), "STEP 2") || !strings.Contains(b.String(), "noise") {
		t.Errorf("%d phases:\n%s", len(r.Phases), &b)
	}
}
