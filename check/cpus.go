package check

import (
	"slices"
	"strconv"
	"strings"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// cpuSet is a set of CPUs, ascending; nil is one that is not known.
type cpuSet spec.CPUList

// parseCPUs reads a CPU list of a report. What is none is not known.
func parseCPUs(list string) cpuSet {
	cpus, err := spec.ParseCPUList(list)
	if err != nil || len(cpus) == 0 {
		return nil
	}
	return cpuSet(cpus)
}

// String is the set as the kernel writes it.
func (s cpuSet) String() string { return spec.CPUList(s).String() }

func (s cpuSet) within(o cpuSet) bool {
	return !slices.ContainsFunc(s, func(cpu int) bool { return !spec.CPUList(o).Contains(cpu) })
}

// and is what is in both; a set that is not known bounds nothing.
func (s cpuSet) and(o cpuSet) cpuSet {
	if s == nil || o == nil {
		return slices.Concat(s, o)
	}
	both := cpuSet{}
	for _, cpu := range s {
		if spec.CPUList(o).Contains(cpu) {
			both = append(both, cpu)
		}
	}
	return both
}

// newMember is a worker's figures, of the phase that epoch names or of the whole
// run.
func newMember(r *report.Report, w *report.Worker, fig report.PhaseSlice, epoch *uint32) member {
	m := member{w: w, fig: fig}
	g := &r.Groups[w.GroupIndex]
	asked := parseCPUs(w.Settings["affinity"].Asked)
	cpuset, moved, always := places(r, g, epoch)
	if !always {
		if m.allowed = asked.and(cpuset); m.allowed == nil {
			m.allowed = parseCPUs(w.Settings["affinity"].Got)
		}
	}
	if moved != nil && (always || m.allowed != nil) {
		m.allowed = append(slices.Clone(m.allowed), moved...)
		slices.Sort(m.allowed)
		m.allowed = slices.Compact(m.allowed)
	}
	m.nodes = memoryNodes(r, w, m.allowed)
	return m
}

// places is where a group might run in a phase, or in all of them: what the cpuset
// of its cgroup held while it was where it was born, and what it might use when
// operations had moved it. always is whether they had in all these phases.
func places(r *report.Report, g *report.Group, epoch *uint32) (cpuset, moved cpuSet, always bool) {
	for i := range r.Run.Phases {
		p := &r.Run.Phases[i]
		if epoch != nil && *epoch != p.Epoch || g.Step > 0 && uint32(g.Step) != p.Epoch {
			continue
		}
		if list, ok := p.Allowed[g.Name]; ok {
			moved = append(moved, parseCPUs(list)...)
			always = epoch != nil
			continue
		}
		if list, ok := p.Cpusets[g.Cgroup]; ok {
			cpuset = append(cpuset, parseCPUs(list)...)
		}
	}
	slices.Sort(cpuset)
	slices.Sort(moved)
	return slices.Compact(cpuset), slices.Compact(moved), always
}

// memoryNodes is the NUMA nodes where a worker's pages belong: those that its
// memory policy names, else those of the CPUs that it may use.
func memoryNodes(r *report.Report, w *report.Worker, allowed cpuSet) []int {
	if _, list, ok := strings.Cut(w.Settings["mem_policy"].Asked, ":"); ok {
		words := strings.Split(list, ",")
		words = slices.DeleteFunc(words, func(s string) bool { return s == "" || s[0] < '0' || s[0] > '9' }) // flags
		if nodes := parseCPUs(strings.Join(words, ",")); nodes != nil {
			return nodes
		}
	}
	if r.Run.Topology == nil || allowed == nil {
		return nil
	}
	var nodes []int
	for _, n := range r.Run.Topology.Nodes {
		if own := parseCPUs(n.CPUs); own != nil && len(own.and(allowed)) > 0 {
			nodes = append(nodes, n.ID)
		}
	}
	return nodes
}

// pageLocality is the share of pages that are where they belong.
func (e *evaluation) pageLocality(limit float64) finding {
	total, local := 0.0, 0.0
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if m.nodes == nil {
			return finding{cannot: "where the pages of " + who(m) + " belong is not known"}
		}
		for node, pages := range m.fig.NUMAPages {
			total += float64(pages)
			if id, err := strconv.Atoi(node); err == nil && slices.Contains(m.nodes, id) {
				local += float64(pages)
			}
		}
	}
	f := finding{why: "no pages were counted"} // then none are local
	if total > 0 {
		f = finding{value: local / total, why: strconv.FormatFloat(local, 'f', 0, 64) + " of " + strconv.FormatFloat(total, 'f', 0, 64) + " pages"}
	}
	f.missed = f.value < limit
	return f
}

// crossNode is the pages that moved between nodes, which the kernel counts for
// the whole system, by the pages that the workers have.
func (e *evaluation) crossNode(limit float64) finding {
	moved, pages := uint64(0), 0.0
	for i := range e.scope.members {
		m := &e.scope.members[i]
		moved = max(moved, m.fig.NUMAMigrated)
		for _, n := range m.fig.NUMAPages {
			pages += float64(n)
		}
	}
	if pages == 0 {
		return finding{cannot: "no pages were counted"}
	}
	ratio := float64(moved) / pages
	return finding{value: ratio, missed: ratio > limit, why: strconv.FormatUint(moved, 10) + " pages migrated in the whole system"}
}
