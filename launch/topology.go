package launch

import (
	"fmt"
	"slices"

	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// What a guest with a topology has at least, in MiB.
const (
	nodeMemory = 256 // for each node
	cpuMemory  = 8   // for each CPU, on top
)

// topology checks the topology that was asked for against the other options.
func (o Options) topology() error {
	t := o.Topology
	if t.IsZero() {
		return nil
	}
	if o.CPUs != 0 {
		return &Error{Class: Usage, Msg: fmt.Sprintf("cpus: %d, and topology %s says it already; leave one out", o.CPUs, t)}
	}
	if o.Spec != nil {
		if n := defaultCPUs(o.Spec); n > t.CPUs() && n > 2 {
			return &Error{Class: Usage, Msg: fmt.Sprintf("topology: %s has %d CPUs, and the spec names CPU %d", t, t.CPUs(), n-1)}
		}
	}
	return nil
}

// topologyFailures is what the guest's kernel sees otherwise than it was asked
// for.
func topologyFailures(want qemu.Topology, got *report.Topology) []string {
	if want.IsZero() {
		return nil
	}
	if got == nil {
		return []string{fmt.Sprintf("topology: asked for %s, and the guest does not say what it has", want)}
	}
	var lines []string
	differ := func(what string, asked, seen any) {
		lines = append(lines, fmt.Sprintf("topology: asked for %s: the guest's kernel sees %s %v, not %v", want, what, seen, asked))
	}
	nodes := make([]string, len(got.Nodes))
	for i, n := range got.Nodes {
		nodes[i] = n.CPUs
	}
	cpus := want.CPUs()
	hint := ""
	if want.Threads > 1 && len(got.Cores) == cpus {
		hint = " (old kernels, 6.1 among them, see no threads on CPUs that are emulated; 6.12 does)"
	}
	for _, l := range []struct {
		what string
		sets int
		seen []string
	}{
		{"NUMA nodes of CPUs", want.Nodes, nodes},
		{"last-level caches of CPUs", want.LLCs, got.LLCs},
		{"cores of CPUs", want.LLCs * want.Cores, got.Cores},
	} {
		if asked := equalParts(cpus, l.sets); !slices.Equal(asked, l.seen) {
			differ(l.what, asked, l.seen)
			if l.what == "cores of CPUs" {
				lines[len(lines)-1] += hint
			}
		}
	}
	for i, n := range got.Nodes {
		asked := slices.Repeat([]int{qemu.RemoteDistance}, len(got.Nodes))
		asked[i] = qemu.LocalDistance
		if !slices.Equal(asked, n.Distances) {
			differ(fmt.Sprintf("distances from node %d", n.ID), asked, n.Distances)
		}
		if n.MemoryMiB == 0 {
			lines = append(lines, fmt.Sprintf("topology: asked for %s: node %d has no memory", want, n.ID))
		}
	}
	return lines
}

// equalParts divides CPUs, in their order, into CPU lists of one size.
func equalParts(cpus, parts int) []string {
	lists := make([]string, parts)
	size := cpus / parts
	for i := range lists {
		list := make(spec.CPUList, size)
		for j := range list {
			list[j] = i*size + j
		}
		lists[i] = list.String()
	}
	return lists
}
