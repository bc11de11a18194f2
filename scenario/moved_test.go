package scenario

import (
	"slices"
	"testing"

	"github.com/guestinit/guestinit/check"
	"github.com/guestinit/guestinit/report"
)

// TestMovedGroups: a group that an operation moves is isolated where it was moved
// to, not where it was born.
func TestMovedGroups(t *testing.T) {
	p := play(t, t.Context(), `
version: 1
duration: 800ms
checks: {isolation: true}
backdrop:
  groups: [{name: a, workers: 1, work: yield_heavy, affinity: 0}, {name: stays, workers: 1, work: yield_heavy, affinity: 1}]
steps:
  - {name: born}
  - {name: moved, ops: [{set_affinity: {group: a, affinity: 1}}]}
  - {name: there}
  - {name: to-and-fro, hold: {loop: 50ms}, ops: [{set_affinity: {group: a, affinity: 0}}, {set_affinity: {group: a, affinity: 1}}]}
`, nil)
	p.passes(t)
	var allowed []string
	for _, ph := range p.Run.Phases {
		allowed = append(allowed, ph.Allowed["a"])
		if list, ok := ph.Allowed["stays"]; ok {
			t.Errorf("%s: a group that was not moved may run on %s", ph.Name, list)
		}
	}
	if want := []string{"", "1", "1", "0-1"}; !slices.Equal(allowed, want) {
		t.Errorf("allowed %q, want %q", allowed, want)
	}
	r := &report.Report{Run: p.Run, Workers: p.workers}
	check.Finish(r, p.spec)
	if len(r.Checks) != 10 {
		t.Errorf("%d checks", len(r.Checks))
	}
	for _, c := range r.Checks {
		if c.Outcome != report.Pass {
			t.Errorf("%+v", c)
		}
	}
}

// TestLateLook: a worker that comes to look long after the end of a phase, and on
// another CPU by then, was not on that one in that phase. In the phase that froze
// it, it may not have run at all.
func TestLateLook(t *testing.T) {
	controllers(t)
	p := play(t, t.Context(), `
version: 1
duration: 900ms
checks: {isolation: true}
backdrop:
  cgroups: [{name: a, groups: [{name: a, workers: 1, work: yield_heavy, affinity: 0}]}]
steps:
  - {name: runs}
  - {name: stopped, hold: {loop: 10s}, ops: [{freeze: a}]}
  - {name: elsewhere, ops: [{set_affinity: {group: a, affinity: 1}}, {thaw: a}]}
`, nil)
	p.passes(t)
	for _, s := range p.workers[0].Phases {
		want, ok := map[uint32]string{0: "0", 1: "0", 2: "0", 3: "1"}[s.Epoch]
		idle := s.Epoch == 2 && s.CPUsUsed == "" && s.WorkUnits == 0
		if ok && s.CPUsUsed != want && !idle {
			t.Errorf("in phase %d it was on %q, want %s", s.Epoch, s.CPUsUsed, want)
		}
	}
}

// TestMovedTasks: the same with tasks that move from one cgroup to another.
func TestMovedTasks(t *testing.T) {
	controllers(t, "cpuset")
	p := play(t, t.Context(), `
version: 1
duration: 600ms
checks: {isolation: true}
backdrop:
  cgroups:
    - {name: a, cpuset: "0", groups: [{name: a, workers: 1, work: yield_heavy}]}
    - {name: b, cpuset: "1"}
steps:
  - {name: born}
  - {name: moved, ops: [{move_tasks: {from: a, to: b}}]}
`, nil)
	p.passes(t)
	r := &report.Report{Run: p.Run, Workers: p.workers}
	check.Finish(r, p.spec)
	if len(r.Checks) != 3 || r.Run.Phases[1].Allowed["a"] != "1" {
		t.Errorf("%d checks, phases %+v", len(r.Checks), r.Run.Phases)
	}
	for _, c := range r.Checks {
		if c.Outcome != report.Pass {
			t.Errorf("%+v", c)
		}
	}
}
