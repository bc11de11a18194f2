package spawn

import (
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// with is a group of one spinner, changed.
func with(change func(g *spec.Group)) spec.Group {
	g := group(1, "spin_wait")
	change(&g)
	return g
}

// TestAdmission refuses bad workloads before anything exists; every error names
// the field with its group, the value and the remedy (S1 to S6).
func TestAdmission(t *testing.T) {
	bad := 42
	for _, c := range []struct {
		name  string
		mode  string
		group spec.Group
		want  []string
	}{
		{"unknown type", Fork, group(1, "spin_wiat"), []string{"work.type", "spin_wiat", "spin_wait"}},
		{"negative workers", Fork, group(-1, "spin_wait"), []string{"workers: -1"}},
		{"odd pair", Fork, group(3, "pipe_io"), []string{"workers: 3 is no multiple of 2", "use 4"}},
		{"no pair", Fork, group(0, "pipe_io"), []string{"workers: 0 is no multiple of 2", "use 2"}},
		{"short chain", Fork, group(2, "wake_chain", "depth", uint64(1)), []string{"work.depth", "1", "2"}},
		{"zero interval", Fork, group(1, "timer_latency", "interval", "0s"), []string{"work.interval", "0s"}},
		{"empty affinity", Fork, with(func(g *spec.Group) { g.Affinity = &spec.Affinity{Exact: spec.CPUList{}} }), []string{"affinity"}},
		{"unresolved intent", Fork, with(func(g *spec.Group) { g.Affinity = &spec.Affinity{Intent: spec.AffinityLLCAligned} }), []string{"affinity: llc_aligned is an intent"}},
		{"empty pool", Fork, with(func(g *spec.Group) { g.Affinity = &spec.Affinity{RandomSubset: &spec.RandomSubset{Count: 1}} }), []string{"affinity.random_subset"}},
		{"no CPUs of a pool", Fork, with(func(g *spec.Group) {
			g.Affinity = &spec.Affinity{RandomSubset: &spec.RandomSubset{From: spec.CPUList{0}}}
		}), []string{"affinity.random_subset.count"}},
		{"unknown policy", Fork, with(func(g *spec.Group) { g.Sched = &spec.Sched{Policy: "fiffo"} }), []string{"sched.policy", "fiffo", "fifo"}},
		{"priority", Fork, with(func(g *spec.Group) { g.Sched = &spec.Sched{Policy: "fifo", Priority: 100} }), []string{"sched.priority: 100", "1 to 99"}},
		{"deadline", Fork, with(func(g *spec.Group) {
			g.Sched = &spec.Sched{Policy: "deadline", Runtime: spec.Duration(2 * time.Millisecond), Deadline: spec.Duration(time.Millisecond)}
		}), []string{"sched.runtime: 2ms", "1ms"}},
		{"memory policy", Fork, with(func(g *spec.Group) { g.MemPolicy = &spec.MemPolicy{Mode: "bund"} }), []string{"mem_policy.mode", "bund", "bind"}},
		{"nodes of bind", Fork, with(func(g *spec.Group) { g.MemPolicy = &spec.MemPolicy{Mode: "bind"} }), []string{"mem_policy.nodes", "bind"}},
		{"nodes of local", Fork, with(func(g *spec.Group) { g.MemPolicy = &spec.MemPolicy{Mode: "local", Nodes: spec.CPUList{0}} }), []string{"mem_policy.nodes", "local"}},
		{"memory flag", Fork, with(func(g *spec.Group) {
			g.MemPolicy = &spec.MemPolicy{Mode: "bind", Nodes: spec.CPUList{0}, Flags: []string{"dynamic"}}
		}), []string{"mem_policy.flags", "dynamic", "static_nodes"}},
		{"nice", Fork, with(func(g *spec.Group) { g.Nice = &bad }), []string{"nice: 42", "-20 to 19"}},
		{"comm", Fork, with(func(g *spec.Group) { g.Comm = "sixteen bytes it" }), []string{"comm", "15 bytes"}},
		{"pcomm", Fork, with(func(g *spec.Group) { g.Pcomm = "a\x00b" }), []string{"pcomm", "NUL"}},
		{"pcomm of threads", Thread, with(func(g *spec.Group) { g.Pcomm = "box" }), []string{"pcomm", "use fork"}},
		{"fork_exit in threads", Thread, group(1, "fork_exit"), []string{"work.type: fork_exit", "thread"}},
		{"cgroup_churn in threads", Thread, group(1, "cgroup_churn"), []string{"work.type: cgroup_churn", "thread"}},
		{"cgroup_attach_storm in threads", Thread, group(1, "cgroup_attach_storm"), []string{"work.type: cgroup_attach_storm", "thread"}},
		{"epoll_storm in processes", Fork, group(3, "epoll_storm"), []string{"work.type: epoll_storm", "fork"}},
		{"fork_exit in a container", Fork, box("box", 1, "fork_exit"), []string{"work.type: fork_exit", "container"}},
		{"cgroup_churn in a container", Fork, box("box", 1, "cgroup_churn"), []string{"work.type: cgroup_churn", "container"}},
		{"cgroup_attach_storm in a container", Fork, box("box", 1, "cgroup_attach_storm"), []string{"work.type: cgroup_attach_storm", "container"}},
		{"exec in threads", Thread, group(1, "exec", "argv", "sh"), []string{"work.type: exec", "thread"}},
		{"exec in a container", Fork, box("box", 1, "exec", "argv", "sh"), []string{"work.type: exec", "container"}},
		{"node", Fork, with(func(g *spec.Group) { n := 4096; g.NUMANode = &n }), []string{"numa_node", "4096"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := group(1, "spin_wait")
			h, err := Spawn(Workload{CloneMode: c.mode, Groups: []spec.Group{good, c.group}})
			if err == nil {
				h.Close()
				t.Fatal("admitted")
			}
			for _, want := range append(c.want, "groups[1].") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not say %q", err, want)
				}
			}
			wantNothingLeft(t)
		})
	}
}

// TestAdmissionOfTheWhole refuses what is wrong with a workload as such (S2).
func TestAdmissionOfTheWhole(t *testing.T) {
	for want, w := range map[string]Workload{
		"clone_mode":            {CloneMode: "vfork"},
		"samples: 100001":       {Samples: worker.ReservoirCap + 1},
		"the limit is 100000":   {Groups: []spec.Group{group(60_000, "spin_wait"), group(60_000, "spin_wait")}},
		"groups[1].workers: -2": {Groups: []spec.Group{group(1, "spin_wait"), group(-2, "spin_wait"), group(1, "nothing")}},
		"groups[2].work":        {Groups: []spec.Group{group(1, "spin_wait"), group(-2, "spin_wait"), group(1, "nothing")}},
	} {
		if err := w.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}

// TestRandomSubsetsDiffer draws anew for every worker (S3).
func TestRandomSubsetsDiffer(t *testing.T) {
	pool := spec.CPUList{}
	for cpu := range 64 {
		pool = append(pool, cpu)
	}
	g := with(func(g *spec.Group) {
		g.Workers = 8
		g.Affinity = &spec.Affinity{RandomSubset: &spec.RandomSubset{From: pool, Count: 8}}
	})
	w := Workload{Groups: []spec.Group{g}}
	plans, err := w.admit()
	if err != nil {
		t.Fatal(err)
	}
	a, err := newArena(plans, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.free()
	drawn := map[worker.CPUMask]bool{}
	for _, s := range a.slabs {
		if n := len(cpuList(&s.Setup.Affinity)); n != 8 {
			t.Errorf("%d CPUs drawn of 8", n)
		}
		drawn[s.Setup.Affinity] = true
	}
	if len(drawn) < 7 { // two alike by chance: 1 in 160 million
		t.Errorf("8 workers drew %d sets", len(drawn))
	}
}

// TestMaxNode: the kernel wants the highest node + 2 (S4).
func TestMaxNode(t *testing.T) {
	var u worker.Setup
	if err := resolveMemPolicy(&u, &spec.MemPolicy{Mode: "interleave", Nodes: spec.CPUList{0, 3}, Flags: []string{"static_nodes"}}); err != nil {
		t.Fatal(err)
	}
	if u.MemMaxNode != 5 || u.MemNodes[0] != 0b1001 || u.MemMode != 3|1<<15 {
		t.Errorf("maxnode %d, nodes %b, mode %#x", u.MemMaxNode, u.MemNodes[0], u.MemMode)
	}
}
