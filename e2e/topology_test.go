package e2e

import (
	"os"
	"slices"
	"testing"

	"github.com/guestinit/guestinit/report"
)

// topologySpec has groups whose CPUs are for the guest's topology to say, and
// thresholds of which one cannot be met.
const topologySpec = `
version: 1
duration: 1s
checks: {isolation: true, zero_progress: true}
groups:
  - {name: one, workers: 1, work: yield_heavy, affinity: single_cpu}
  - {name: cache, workers: 2, work: yield_heavy, affinity: llc_aligned}
  - {name: late, workers: 1, work: timer_latency, checks: {max_p99_timer_latency: 1ns}}
`

// runTopology boots 2n4l2cNt with kernel, and checks that it is what the guest
// has and what its workers ran on.
func runTopology(t *testing.T, kernel, topology string, caches []string) *report.Report {
	t.Helper()
	r := guestinit(t, topologySpec, "run", "--kernel", kernelDir(t, kernel), "--accel", "tcg", "--topology", topology, "--json", "-", "-")
	r.want(t, 6) // emulation makes the threshold of timing inconclusive
	rep := r.report(t)
	top := rep.Run.Topology
	if top == nil || !slices.Equal(top.LLCs, caches) || len(top.Nodes) != 2 {
		t.Fatalf("the guest has %+v, failures %q", top, rep.Failures)
	}
	if rep.Verdict != report.Inconclusive {
		t.Errorf("verdict %s, failures %q", rep.Verdict, rep.Failures)
	}
	for group, want := range []string{"0", caches[0], ""} {
		for _, w := range rep.Workers {
			if got := w.Settings["affinity"]; w.GroupIndex == group && want != "" && (got.Asked != want || got.Got != want) {
				t.Errorf("worker of %s: affinity %+v, want %s", rep.Groups[group].Name, got, want)
			}
		}
	}
	for _, c := range rep.Checks {
		want := report.Pass
		if c.Name == "max_p99_timer_latency" {
			want = report.Inconclusive
		}
		if c.Outcome != want {
			t.Errorf("%+v, want %s", c, want)
		}
	}
	return rep
}

func TestTopologyInGuest(t *testing.T) {
	t.Parallel()
	runTopology(t, "7.2", "2n4l2c1t", []string{"0-1", "2-3", "4-5", "6-7"})
}

// A kernel that does not see what was asked for fails the run.
func TestTopologyMismatch(t *testing.T) {
	r := guestinit(t, topologySpec, "run", "--kernel", kernelDir(t, "7.2"), "--accel", "tcg", "--topology", "2n2l1c1t", "--append", "numa=off", "--json", "-", "-")
	r.want(t, 1)
	const want = "topology: asked for 2n2l1c1t: the guest's kernel sees NUMA nodes of CPUs [0-1], not [0 1]"
	if rep := r.report(t); !slices.Contains(rep.Failures, want) {
		t.Errorf("failures %q", rep.Failures)
	}
}

// TestLongTopology boots every kernel with more CPUs, and SMT.
func TestLongTopology(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes minutes; make check-all")
	}
	for _, tt := range []struct {
		kernel, topology string
		caches           []string
		cores            int
	}{
		{"6.1", "2n4l2c1t", []string{"0-1", "2-3", "4-5", "6-7"}, 8}, // sees no emulated threads
		{"6.12", "2n4l2c2t", []string{"0-3", "4-7", "8-11", "12-15"}, 8},
		{"7.2", "2n4l2c2t", []string{"0-3", "4-7", "8-11", "12-15"}, 8},
	} {
		t.Run(tt.kernel, func(t *testing.T) {
			rep := runTopology(t, tt.kernel, tt.topology, tt.caches)
			if n := len(rep.Run.Topology.Cores); n != tt.cores {
				t.Errorf("%d cores", n)
			}
		})
	}
}

// TestLongTopologyExample runs the example on the topology that it names, and
// with it a pair of siblings, which not every machine has.
func TestLongTopologyExample(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes half a minute; make check-all")
	}
	example, err := os.ReadFile("../examples/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(example) + "  - {name: siblings, workers: 2, work: smt_sibling_spin, affinity: smt_sibling_pair}\n"
	r := guestinit(t, text, "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--topology", "2n4l2c2t", "--json", "-", "-")
	r.want(t, 0)
	for _, w := range r.report(t).Workers {
		want := []string{"0", "0-3", "0-15", "0-1"}[w.GroupIndex]
		if got := w.Settings["affinity"].Got; got != want {
			t.Errorf("worker %d of group %d: affinity %s, want %s", w.Index, w.GroupIndex, got, want)
		}
	}
}

// TestNUMAExample runs the example that needs two nodes: its task is at home on one
// with its pages, and leaves them there when it moves to the other.
func TestNUMAExample(t *testing.T) {
	r := guestinit(t, "", "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--topology", "2n2l1c1t", "--json", "-", "../examples/numa-migration.yaml")
	r.want(t, 0)
	rep := r.report(t)
	outcomes := map[string]report.Verdict{}
	for _, c := range rep.Checks {
		outcomes[c.Scope+": "+c.Name] = c.Outcome
	}
	for _, want := range []string{"group app, at-home: isolation", "group app, at-home: min_page_locality", "group app, moved: isolation", "group app, moved: max_cross_node_migration_ratio"} {
		if outcomes[want] != report.Pass || len(outcomes) != 4 {
			t.Errorf("%s: %q of %v", want, outcomes[want], rep.Checks)
		}
	}
	for _, p := range rep.Workers[0].Phases {
		if want := map[uint32]string{1: "0", 2: "1"}[p.Epoch]; want != "" && (p.CPUsUsed != want || p.NUMAPages["0"] < 2000) {
			t.Errorf("in step %d it ran on %s with pages %v", p.Epoch, p.CPUsUsed, p.NUMAPages)
		}
	}
}

// TestVerdictsExample runs the example here: its thresholds are wide.
func TestVerdictsExample(t *testing.T) {
	r := guestinit(t, "", "local", "--json", "-", "../examples/verdicts.yaml")
	r.want(t, 0)
	rep := r.report(t)
	if len(rep.Checks) != 9 {
		t.Errorf("%d checks: %+v", len(rep.Checks), rep.Checks)
	}
}
