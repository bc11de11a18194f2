package topology

import (
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/guestinit/guestinit/spec"
)

// machine is a sysfs of numa nodes, last-level caches in all, cores in each and
// threads in each core, numbered as Linux numbers QEMU's CPUs: one after the
// other.
func machine(numa, llcs, cores, threads int) fstest.MapFS {
	sys := fstest.MapFS{}
	put := func(text, format string, args ...any) {
		sys[fmt.Sprintf(format, args...)] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	perLLC := cores * threads
	total := llcs * perLLC
	put(span(0, total), cpuDir+"/online")
	put(span(0, numa), nodeDir+"/online")
	for n := range numa {
		put(span(n*total/numa, (n+1)*total/numa), "%s/node%d/cpulist", nodeDir, n)
		distances := make([]string, numa)
		for i := range distances {
			if distances[i] = "20"; i == n {
				distances[i] = "10"
			}
		}
		put(strings.Join(distances, " "), "%s/node%d/distance", nodeDir, n)
		put(fmt.Sprintf("Node %d MemTotal:         262144 kB\nNode %d MemFree: 1 kB", n, n), "%s/node%d/meminfo", nodeDir, n)
	}
	for cpu := range total {
		dir := fmt.Sprintf("%s/cpu%d", cpuDir, cpu)
		core, llc := cpu/threads*threads, cpu/perLLC*perLLC
		put(span(core, core+threads), "%s/topology/core_cpus_list", dir)
		put(span(0, total), "%s/topology/package_cpus_list", dir)
		for i, c := range []struct {
			kind, level, sharers string
		}{{"Data", "1", span(core, core+threads)}, {"Instruction", "1", span(core, core+threads)}, {"Unified", "2", span(core, core+threads)}, {"Unified", "3", span(llc, llc+perLLC)}} {
			put(c.kind, "%s/cache/index%d/type", dir, i)
			put(c.level, "%s/cache/index%d/level", dir, i)
			put(c.sharers, "%s/cache/index%d/shared_cpu_list", dir, i)
		}
	}
	return sys
}

func span(from, to int) string {
	if to == from+1 {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d-%d", from, to-1)
}

func read(t *testing.T, sys fs.FS) *Topology {
	t.Helper()
	top, err := ReadFrom(sys)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func TestReadFrom(t *testing.T) {
	got := read(t, machine(2, 4, 2, 2))
	want := &Topology{
		Online: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		Nodes: []Node{
			{0, []int{0, 1, 2, 3, 4, 5, 6, 7}, 262144, []int{10, 20}},
			{1, []int{8, 9, 10, 11, 12, 13, 14, 15}, 262144, []int{20, 10}},
		},
		LLCs: []LLC{{[]int{0, 1, 2, 3}, 0}, {[]int{4, 5, 6, 7}, 0}, {[]int{8, 9, 10, 11}, 1}, {[]int{12, 13, 14, 15}, 1}},
		Cores: []Core{{[]int{0, 1}, 0}, {[]int{2, 3}, 0}, {[]int{4, 5}, 1}, {[]int{6, 7}, 1},
			{[]int{8, 9}, 2}, {[]int{10, 11}, 2}, {[]int{12, 13}, 3}, {[]int{14, 15}, 3}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// What a kernel may leave out has a stand-in, and CPUs that are offline are
// nowhere.
func TestReadFromLess(t *testing.T) {
	less := func(base fstest.MapFS, drop string, put map[string]string) fstest.MapFS {
		for name := range base {
			if strings.Contains(name, drop) && drop != "" {
				delete(base, name)
			}
		}
		for name, text := range put {
			base[name] = &fstest.MapFile{Data: []byte(text)}
		}
		return base
	}
	top := read(t, less(machine(1, 2, 2, 1), nodeDir, nil))
	if len(top.Nodes) != 1 || len(top.Nodes[0].CPUs) != 4 || top.NodeOf(3) != 0 {
		t.Errorf("without NUMA: %+v", top.Nodes)
	}
	top = read(t, less(machine(1, 2, 2, 1), "/cache/", nil))
	if len(top.LLCs) != 1 || len(top.LLCs[0].CPUs) != 4 {
		t.Errorf("without caches: %+v", top.LLCs)
	}
	top = read(t, less(less(machine(1, 2, 2, 1), "/cache/", nil), "/topology/", nil))
	if len(top.LLCs) != 4 || len(top.Cores) != 4 {
		t.Errorf("without topology: %+v %+v", top.LLCs, top.Cores)
	}
	top = read(t, less(machine(1, 1, 2, 2), "core_cpus_list", map[string]string{
		cpuDir + "/cpu0/topology/thread_siblings_list": "0-1", cpuDir + "/cpu2/topology/thread_siblings_list": "2-3"}))
	if len(top.Cores) != 2 {
		t.Errorf("old names: %+v", top.Cores)
	}
	top = read(t, less(machine(2, 2, 2, 1), "", map[string]string{cpuDir + "/online": "0,2-3"}))
	if len(top.Online) != 3 || len(top.Cores) != 3 || len(top.LLCs[0].CPUs) != 1 || len(top.Nodes[0].CPUs) != 1 || top.NodeOf(1) != -1 {
		t.Errorf("offline: %+v", top)
	}
	// A CPU whose cache says nothing of it is a set of its own, and none is in two.
	top = read(t, less(machine(1, 1, 3, 1), "", map[string]string{cpuDir + "/cpu0/cache/index3/shared_cpu_list": "1-2"}))
	if seen := len(top.LLCs); seen != 2 || len(top.LLCs[0].CPUs) != 1 || len(top.LLCs[1].CPUs) != 2 {
		t.Errorf("lying caches: %+v", top.LLCs)
	}
}

func TestReadFromErrors(t *testing.T) {
	for name, text := range map[string]string{
		cpuDir + "/online": "",
		cpuDir + "/cpu1/cache/index3/shared_cpu_list": "0-x",
		cpuDir + "/cpu1/topology/core_cpus_list":      "1-0",
		nodeDir + "/online":                           "zero",
		nodeDir + "/node0/distance":                   "10",
		nodeDir + "/node1/distance":                   "10 far",
		nodeDir + "/node1/cpulist":                    "2,",
	} {
		sys := machine(2, 4, 1, 1)
		sys[name] = &fstest.MapFile{Data: []byte(text)}
		if name == cpuDir+"/cpu1/topology/core_cpus_list" || strings.Contains(name, "cpu1/cache") {
			if _, err := ReadFrom(sys); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if _, err := ReadFrom(sys); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(name, "/online")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, missing := range []string{cpuDir + "/online", nodeDir + "/node1/cpulist", nodeDir + "/node1/distance"} {
		sys := machine(2, 2, 1, 1)
		delete(sys, missing)
		if _, err := ReadFrom(sys); err == nil {
			t.Errorf("without %s: no error", missing)
		}
	}
}

// This machine is read too, whatever it is.
func TestRead(t *testing.T) {
	top, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	for what, sets := range map[string]int{"nodes": cpus(top.Nodes, func(n Node) []int { return n.CPUs }),
		"caches": cpus(top.LLCs, func(l LLC) []int { return l.CPUs }), "cores": cpus(top.Cores, func(c Core) []int { return c.CPUs })} {
		if sets != len(top.Online) {
			t.Errorf("%d CPUs online, %d in %s", len(top.Online), sets, what)
		}
	}
}

func cpus[T any](sets []T, of func(T) []int) (n int) {
	for _, s := range sets {
		n += len(of(s))
	}
	return n
}

func pointer[T any](v T) *T { return &v }

func TestCpuset(t *testing.T) {
	top := read(t, machine(2, 4, 2, 2)) // 16 CPUs, 15 usable
	small := read(t, machine(1, 1, 2, 1))
	for _, tt := range []struct {
		top  *Topology
		set  spec.Cpuset
		want string // CPU list, or the error
	}{
		{top, spec.Cpuset{LLC: pointer(0)}, "0-3"},
		{top, spec.Cpuset{LLC: pointer(3)}, "12-15"},
		{top, spec.Cpuset{LLC: pointer(4)}, "cpuset.llc: no last-level cache 4 here, only 0 to 3"},
		{top, spec.Cpuset{LLC: pointer(-1)}, "cpuset.llc: no last-level cache -1 here, only 0 to 3"},
		{top, spec.Cpuset{NUMA: pointer(1)}, "8-15"},
		{top, spec.Cpuset{NUMA: pointer(2)}, "cpuset.numa: no NUMA node 2 here, only 0-1"},
		{top, spec.Cpuset{Range: &spec.CpusetRange{Start: 0, End: 1}}, "0-14"},
		{top, spec.Cpuset{Range: &spec.CpusetRange{Start: 0, End: 0.5}}, "0-6"},
		{top, spec.Cpuset{Range: &spec.CpusetRange{Start: 0.5, End: 1}}, "7-14"},
		{top, spec.Cpuset{Range: &spec.CpusetRange{Start: 0.5, End: 0.51}}, "cpuset.range: no CPU of the 15 usable ones is in it"},
		{top, spec.Cpuset{Range: &spec.CpusetRange{Start: 0.5, End: 0.5}}, "cpuset.range: 0.5 to 0.5 is no range; start below end, both 0 to 1"},
		{top, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 0, Of: 4}}, "0-2"},
		{top, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 3, Of: 4}}, "9-14"},
		{top, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 14, Of: 15}}, "14"},
		{top, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 0, Of: 16}}, "cpuset.disjoint: 15 usable CPUs do not make 16 parts"},
		{top, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 4, Of: 4}}, "cpuset.disjoint: no part 4 of 4; index 0 to of-1"},
		{top, spec.Cpuset{Disjoint: &spec.CpusetPart{}}, "cpuset.disjoint: no part 0 of 0; index 0 to of-1"},
		{top, spec.Cpuset{Overlap: &spec.CpusetOverlap{Index: 0, Of: 3, Frac: 0.5}}, "0-6"},
		{top, spec.Cpuset{Overlap: &spec.CpusetOverlap{Index: 1, Of: 3, Frac: 0.5}}, "3-11"},
		{top, spec.Cpuset{Overlap: &spec.CpusetOverlap{Index: 2, Of: 3, Frac: 1}}, "5-14"},
		{top, spec.Cpuset{Overlap: &spec.CpusetOverlap{Index: 1, Of: 3, Frac: 0}}, "5-9"},
		{top, spec.Cpuset{Overlap: &spec.CpusetOverlap{Index: 1, Of: 3, Frac: 2}}, "cpuset.overlap: frac 2 is out of range; 0 to 1"},
		{top, spec.Cpuset{Exact: spec.CPUList{0, 15}}, "0,15"},
		{top, spec.Cpuset{Exact: spec.CPUList{0, 16}}, "cpuset.exact: CPU 16 is not online here, only 0-15"},
		{top, spec.Cpuset{}, "cpuset.exact: no CPU of the 15 usable ones is in it"},
		{small, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 1, Of: 2}}, "1"}, // two CPUs are both usable
		{small, spec.Cpuset{Disjoint: &spec.CpusetPart{Index: 1, Of: 3}}, "cpuset.disjoint: 2 usable CPUs do not make 3 parts"},
	} {
		cpus, err := tt.top.Cpuset(&tt.set)
		got := spec.CPUList(cpus).String()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.set, got, tt.want)
		}
	}
}

func TestAffinity(t *testing.T) {
	smt := read(t, machine(2, 4, 2, 2))
	plain := read(t, machine(1, 2, 2, 1))
	intent := func(name string) *spec.Affinity { return &spec.Affinity{Intent: name} }
	for _, tt := range []struct {
		top    *Topology
		a      *spec.Affinity
		cpuset []int
		want   string // CPU list, COUNT of CPU list, or the error
	}{
		{smt, intent(spec.AffinitySingleCPU), nil, "0"},
		{smt, intent(spec.AffinitySingleCPU), []int{5, 6}, "5"},
		{smt, intent(spec.AffinityLLCAligned), nil, "0-3"},
		{smt, intent(spec.AffinityLLCAligned), []int{3, 4, 5, 15}, "4-5"},
		{smt, intent(spec.AffinityLLCAligned), []int{3, 4}, "3"}, // the first of equals
		{smt, intent(spec.AffinityCrossCgroup), []int{3, 4}, "0-15"},
		{smt, intent(spec.AffinitySMTSiblingPair), nil, "0-1"},
		{smt, intent(spec.AffinitySMTSiblingPair), []int{1, 2, 4, 6, 7}, "6-7"},
		{smt, intent(spec.AffinitySMTSiblingPair), []int{1, 2, 4, 6}, "affinity: smt_sibling_pair: no core has two siblings in 1-2,4,6; give the guest some with --topology, such as 1n1l2c2t"},
		{plain, intent(spec.AffinitySMTSiblingPair), nil, "affinity: smt_sibling_pair: no core has two siblings in 0-3; give the guest some with --topology, such as 1n1l2c2t"},
		{smt, intent(spec.AffinitySingleCPU), []int{99}, "affinity: no CPU of the cpuset 99 is online here"},
		{smt, intent("anywhere"), nil, "affinity: anywhere: unknown intent"},
		{smt, nil, []int{3}, "inherit"},
		{smt, &spec.Affinity{Exact: spec.CPUList{1, 2, 3}}, []int{2, 3, 4}, "2-3"},
		{smt, &spec.Affinity{Exact: spec.CPUList{1}}, []int{2, 3, 4}, "affinity.exact: 1 has no CPU of 2-4"},
		{smt, &spec.Affinity{Exact: spec.CPUList{16}}, nil, "affinity.exact: 16 has no CPU of 0-15"},
		{smt, &spec.Affinity{RandomSubset: &spec.RandomSubset{From: spec.CPUList{1, 2, 3}, Count: 2}}, nil, "2 of 1-3"},
		{smt, &spec.Affinity{RandomSubset: &spec.RandomSubset{From: spec.CPUList{1, 2, 3}, Count: 2}}, []int{3, 4}, "1 of 3"},
		{smt, &spec.Affinity{RandomSubset: &spec.RandomSubset{From: spec.CPUList{1}, Count: 1}}, []int{3, 4}, "affinity.random_subset.from: 1 has no CPU of 3-4"},
		{&Topology{Online: []int{0}}, intent(spec.AffinityLLCAligned), nil, "affinity: llc_aligned: no CPU of 0 is known"},
	} {
		a, err := tt.top.Affinity(tt.a, tt.cpuset)
		got := "inherit"
		switch {
		case err != nil:
			got = err.Error()
		case a != nil && a.RandomSubset != nil:
			got = fmt.Sprintf("%d of %s", a.RandomSubset.Count, a.RandomSubset.From)
		case a != nil:
			got = a.Exact.String()
		}
		if got != tt.want {
			t.Errorf("%+v in %v: got %s, want %s", tt.a, tt.cpuset, got, tt.want)
		}
	}
}

// What comes out is the caller's: the topology stays as it was.
func TestResultsAreCopies(t *testing.T) {
	top := read(t, machine(2, 2, 2, 1))
	cpus, err := top.Cpuset(&spec.Cpuset{LLC: pointer(0)})
	if err != nil {
		t.Fatal(err)
	}
	cpus[0] = 99
	a, err := top.Affinity(&spec.Affinity{Intent: spec.AffinityCrossCgroup}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Exact[0] = 99
	if top.LLCs[0].CPUs[0] != 0 || top.Online[0] != 0 {
		t.Errorf("%+v", top)
	}
}
