package scenario

import (
	"fmt"
	"slices"
	"testing"
)

// TestNestedCPUs: what a cgroup can use of its cpuset, as the kernel has it, and a
// note where that is not all.
func TestNestedCPUs(t *testing.T) {
	var notes []string
	tree := &tree{note: func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }}
	for _, c := range []*cell{
		{name: "a", cpus: []int{0, 1, 2}}, {name: "a/b", cpus: []int{2, 3}}, {name: "a/b/c"}, {name: "a/d", cpus: []int{3}},
		{name: "a/d/e", cpus: []int{0, 3}}, {name: "f"}, {name: "f/g", cpus: []int{1}},
	} {
		tree.cells = append(tree.cells, c)
		tree.noteLess(c)
		tree.noteLess(c) // once is enough
	}
	for name, want := range map[string][]int{
		"a": {0, 1, 2}, "a/b": {2}, "a/b/c": {2}, "a/d": {0, 1, 2}, "a/d/e": {0}, "f": nil, "f/g": {1}, "": nil,
	} {
		if got := tree.cpus(name); !slices.Equal(got, want) {
			t.Errorf("%s can use %v, want %v", name, got, want)
		}
	}
	want := []string{
		"cgroup a/b: its cpuset is 2-3, but those around it leave it 2",
		"cgroup a/d: its cpuset is 3, but those around it leave it 0-2",
		"cgroup a/d/e: its cpuset is 0,3, but those around it leave it 0",
	}
	if !slices.Equal(notes, want) {
		t.Errorf("notes %q", notes)
	}
}

// TestNestedCpusets: the kernel and we agree, through operations too.
func TestNestedCpusets(t *testing.T) {
	controllers(t, "cpuset")
	p := play(t, t.Context(), `
version: 1
duration: 600ms
backdrop:
  cgroups:
    - name: outer
      cpuset: "0"
      cgroups:
        - {name: in, cpuset: 0-1, groups: [{name: in, workers_pct: 100%, work: yield_heavy}]}
        - {name: beside, cpuset: "1", groups: [{name: beside, workers_pct: 100%, work: yield_heavy, affinity: single_cpu}]}
steps:
  - {name: made}
  - {name: wider, ops: [{set_cpuset: {cgroup: outer, cpuset: 0-1}}]}
`, nil)
	p.passes(t)
	if len(p.workers) != 2 {
		t.Fatalf("%d workers", len(p.workers))
	}
	for i, want := range []map[string]string{
		{"outer": "0", "outer/in": "0", "outer/beside": "0"},
		{"outer": "0-1", "outer/in": "0-1", "outer/beside": "1"},
	} {
		for name, cpus := range want {
			if got := p.Run.Phases[i].Cpusets[name]; got != cpus {
				t.Errorf("step %d: %s can use %s, want %s", i, name, got, cpus)
			}
		}
	}
	for _, w := range p.workers {
		for _, s := range w.Phases {
			if s.Epoch == 1 && s.CPUsUsed != "0" {
				t.Errorf("group %d ran on %s", w.GroupIndex, s.CPUsUsed)
			}
		}
	}
}
