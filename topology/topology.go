// Package topology is the machine as the running kernel sees it: which CPUs are
// online and how they share cores, last-level caches and NUMA nodes. It turns
// what a spec says in these terms into CPUs. It reads sysfs, changes nothing and
// imports spec alone.
package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/guestinit/guestinit/spec"
)

// Topology is one machine. All lists of CPUs are ascending and hold online CPUs
// only.
type Topology struct {
	Online []int
	Nodes  []Node // ascending by ID; those without memory or CPUs too
	LLCs   []LLC  // ascending by first CPU
	Cores  []Core // ascending by first CPU
}

// Node is a NUMA node.
type Node struct {
	ID        int
	CPUs      []int
	MemKiB    uint64 // 0 where the kernel does not say
	Distances []int  // to each of Nodes, in its order; 10 is local
}

// LLC is a set of CPUs that share a last-level cache.
type LLC struct {
	CPUs []int
	Node int // of its first CPU
}

// Core is a set of CPUs that are SMT siblings.
type Core struct {
	CPUs []int
	LLC  int // index in LLCs
}

// Read reads the topology of this machine.
func Read() (*Topology, error) { return ReadFrom(os.DirFS("/sys")) }

// ReadFrom reads a topology from a sysfs, of which sys is the root. CPUs without
// cache files count as sharing one cache in their package; a kernel without NUMA
// has one node.
func ReadFrom(sys fs.FS) (*Topology, error) {
	r := reader{sys: sys}
	t := new(Topology)
	var err error
	if t.Online, err = r.list(cpuDir + "/online"); err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	if len(t.Online) == 0 {
		return nil, fmt.Errorf("read topology: %s/online lists no CPU", cpuDir)
	}
	for _, step := range []func(*Topology) error{r.nodes, r.llcs, r.cores} {
		if err := step(t); err != nil {
			return nil, fmt.Errorf("read topology: %w", err)
		}
	}
	return t, nil
}

const (
	cpuDir  = "devices/system/cpu"
	nodeDir = "devices/system/node"
)

// reader reads small files of a sysfs.
type reader struct{ sys fs.FS }

func (r reader) text(path string) (string, error) {
	b, err := fs.ReadFile(r.sys, path)
	return strings.TrimSpace(string(b)), err
}

func (r reader) list(path string) ([]int, error) {
	text, err := r.text(path)
	if err != nil {
		return nil, err
	}
	list, err := spec.ParseCPUList(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// number is the number in a file, or otherwise where there is none.
func (r reader) number(path string, otherwise int) int {
	text, _ := r.text(path)
	n, err := strconv.Atoi(text)
	if err != nil {
		return otherwise
	}
	return n
}

// nodes reads the NUMA nodes.
func (r reader) nodes(t *Topology) error {
	ids, err := r.list(nodeDir + "/online")
	if errors.Is(err, fs.ErrNotExist) {
		t.Nodes = []Node{{CPUs: t.Online, Distances: []int{10}}}
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range ids {
		dir := fmt.Sprintf("%s/node%d", nodeDir, id)
		cpus, err := r.list(dir + "/cpulist")
		if err != nil {
			return err
		}
		n := Node{ID: id, CPUs: t.online(cpus), MemKiB: r.memory(dir)}
		text, err := r.text(dir + "/distance")
		if err != nil {
			return err
		}
		for word := range strings.FieldsSeq(text) {
			d, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("%s/distance: %q is no list of distances", dir, text)
			}
			n.Distances = append(n.Distances, d)
		}
		if len(n.Distances) != len(ids) {
			return fmt.Errorf("%s/distance: %d distances for %d nodes", dir, len(n.Distances), len(ids))
		}
		t.Nodes = append(t.Nodes, n)
	}
	return nil
}

// memory is a node's memory in KiB: "Node 0 MemTotal: 1234 kB" of its meminfo.
func (r reader) memory(dir string) uint64 {
	text, _ := r.text(dir + "/meminfo")
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, "MemTotal:"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// online is those of cpus that are online.
func (t *Topology) online(cpus []int) []int { return intersect(cpus, t.Online) }

// llcs finds the last-level caches.
func (r reader) llcs(t *Topology) error {
	return r.groups(t, r.llcOf, func(cpus []int) {
		t.LLCs = append(t.LLCs, LLC{CPUs: cpus, Node: t.NodeOf(cpus[0])})
	})
}

// cores finds the cores.
func (r reader) cores(t *Topology) error {
	return r.groups(t, r.siblings, func(cpus []int) {
		llc := slices.IndexFunc(t.LLCs, func(l LLC) bool { return slices.Contains(l.CPUs, cpus[0]) })
		t.Cores = append(t.Cores, Core{CPUs: cpus, LLC: llc})
	})
}

// groups divides the online CPUs into sets: sharers tells the set of one CPU.
func (r reader) groups(t *Topology, sharers func(cpu int) ([]int, error), add func(cpus []int)) error {
	taken := make(map[int]bool, len(t.Online))
	for _, cpu := range t.Online {
		if taken[cpu] {
			continue
		}
		all, err := sharers(cpu)
		if err != nil {
			return err
		}
		cpus := slices.DeleteFunc(t.online(all), func(c int) bool { return taken[c] })
		if !slices.Contains(cpus, cpu) {
			cpus = []int{cpu}
		}
		for _, c := range cpus {
			taken[c] = true
		}
		add(cpus)
	}
	return nil
}

// maxCaches bounds the caches of one CPU that are looked at.
const maxCaches = 16

// llcOf is the CPUs that share the highest cache of data with cpu, or its
// package if the kernel tells of no cache.
func (r reader) llcOf(cpu int) ([]int, error) {
	path, highest := "", 0
	for i := range maxCaches {
		dir := fmt.Sprintf("%s/cpu%d/cache/index%d", cpuDir, cpu, i)
		kind, err := r.text(dir + "/type")
		if err != nil {
			break // the indexes have no holes
		}
		if level := r.number(dir+"/level", 0); level > highest && kind != "Instruction" {
			path, highest = dir+"/shared_cpu_list", level
		}
	}
	if path != "" {
		return r.list(path)
	}
	return r.first(cpu, "package_cpus_list", "core_siblings_list")
}

// siblings is the CPUs of the core of cpu.
func (r reader) siblings(cpu int) ([]int, error) {
	return r.first(cpu, "core_cpus_list", "thread_siblings_list")
}

// first is the list in the first of the topology files that cpu has, or cpu
// alone. The second name is that of kernels before 5.3.
func (r reader) first(cpu int, names ...string) ([]int, error) {
	for _, name := range names {
		list, err := r.list(fmt.Sprintf("%s/cpu%d/topology/%s", cpuDir, cpu, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return list, err
		}
	}
	return []int{cpu}, nil
}

// NodeOf is the ID of the NUMA node of a CPU, or -1.
func (t *Topology) NodeOf(cpu int) int {
	for _, n := range t.Nodes {
		if slices.Contains(n.CPUs, cpu) {
			return n.ID
		}
	}
	return -1
}

// intersect is what is in both of two ascending lists.
func intersect(a, b []int) []int {
	var both []int
	for _, v := range a {
		if _, ok := slices.BinarySearch(b, v); ok {
			both = append(both, v)
		}
	}
	return both
}
