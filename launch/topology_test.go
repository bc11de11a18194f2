package launch

import (
	"errors"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

func parsed(t *testing.T, s string) qemu.Topology {
	t.Helper()
	top, err := qemu.ParseTopology(s)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// seen is what a kernel says of 2n4l2c2t.
func seen() *report.Topology {
	return &report.Topology{
		Nodes: []report.TopologyNode{{ID: 0, CPUs: "0-7", MemoryMiB: 250, Distances: []int{10, 20}}, {ID: 1, CPUs: "8-15", MemoryMiB: 250, Distances: []int{20, 10}}},
		LLCs:  []string{"0-3", "4-7", "8-11", "12-15"},
		Cores: []string{"0-1", "2-3", "4-5", "6-7", "8-9", "10-11", "12-13", "14-15"},
	}
}

func TestTopologyFailures(t *testing.T) {
	want := parsed(t, "2n4l2c2t")
	if got := topologyFailures(want, seen()); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if got := topologyFailures(qemu.Topology{}, nil); got != nil {
		t.Errorf("not asked for: %q", got)
	}
	for _, tt := range []struct {
		name string
		edit func(*report.Topology) *report.Topology
		want string
	}{
		{"nothing said", func(*report.Topology) *report.Topology { return nil }, "the guest does not say"},
		{"one node", func(r *report.Topology) *report.Topology {
			r.Nodes = []report.TopologyNode{{CPUs: "0-15", MemoryMiB: 500, Distances: []int{10}}}
			return r
		}, "the guest's kernel sees NUMA nodes of CPUs [0-15], not [0-7 8-15]"},
		{"one cache", func(r *report.Topology) *report.Topology { r.LLCs = []string{"0-15"}; return r }, "last-level caches of CPUs [0-15], not [0-3 4-7 8-11 12-15]"},
		{"no SMT", func(r *report.Topology) *report.Topology { r.Cores[0] = "0"; return r }, "cores of CPUs [0 2-3"},
		{"no SMT at all", func(r *report.Topology) *report.Topology { r.Cores = equalParts(16, 16); return r }, "14-15] (old kernels, 6.1 among them"},
		{"far", func(r *report.Topology) *report.Topology { r.Nodes[1].Distances[0] = 40; return r }, "distances from node 1 [40 10], not [20 10]"},
		{"no memory", func(r *report.Topology) *report.Topology { r.Nodes[1].MemoryMiB = 0; return r }, "node 1 has no memory"},
	} {
		got := topologyFailures(want, tt.edit(seen()))
		if len(got) != 1 || !strings.Contains(got[0], tt.want) || !strings.HasPrefix(got[0], "topology: asked for 2n4l2c2t: ") && tt.name != "nothing said" {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

func TestTopologyOptions(t *testing.T) {
	s := &spec.Spec{Version: 1, Groups: []spec.Group{{Workers: 1, Work: spec.Work{Type: "spin_wait"}, Affinity: &spec.Affinity{Exact: spec.CPUList{0, 5}}}}}
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Spec: s, Topology: parsed(t, "1n1l6c1t")}, ""},
		{Options{Spec: s, Topology: parsed(t, "1n1l4c1t")}, "has 4 CPUs, and the spec names CPU 5"},
		{Options{Spec: s, CPUs: 6, Topology: parsed(t, "1n1l6c1t")}, "cpus: 6, and topology 1n1l6c1t says it already"},
	} {
		o, err := tt.o.withDefaults()
		var e *Error
		if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &e) || e.Class != Usage || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt.o, err)
		}
		if tt.want == "" && (o.CPUs != 0 || o.MemoryMiB != 512) {
			t.Errorf("%d CPUs, %d MiB", o.CPUs, o.MemoryMiB)
		}
	}
	o, err := Options{Spec: s, Topology: parsed(t, "numa4-12llc")}.withDefaults()
	if err != nil || o.MemoryMiB != 4096 {
		t.Errorf("%v, %d MiB", err, o.MemoryMiB)
	}
}
