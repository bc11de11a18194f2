package topology

import (
	"fmt"
	"math"
	"slices"

	"github.com/guestinit/guestinit/spec"
)

// Usable is the CPUs that ranges and parts of a cpuset are taken from: all but
// the last, which is left to what else runs, where there are more than two.
func (t *Topology) Usable() []int {
	if len(t.Online) > 2 {
		return t.Online[:len(t.Online)-1]
	}
	return t.Online
}

// Cpuset is the CPUs that a cpuset of a spec means here, ascending and never
// none. Errors name what this machine has not.
func (t *Topology) Cpuset(s *spec.Cpuset) ([]int, error) {
	cpus, err := t.cpuset(s)
	if err == nil && len(cpus) == 0 {
		err = fmt.Errorf("no CPU of the %d usable ones is in it", len(t.Usable()))
	}
	if err != nil {
		return nil, fmt.Errorf("cpuset.%s: %w", form(s), err)
	}
	return slices.Clone(cpus), nil
}

// form names the field of a cpuset that is set.
func form(s *spec.Cpuset) string {
	switch {
	case s.LLC != nil:
		return "llc"
	case s.NUMA != nil:
		return "numa"
	case s.Range != nil:
		return "range"
	case s.Disjoint != nil:
		return "disjoint"
	case s.Overlap != nil:
		return "overlap"
	}
	return "exact"
}

func (t *Topology) cpuset(s *spec.Cpuset) ([]int, error) {
	switch {
	case s.LLC != nil:
		if i := *s.LLC; i >= 0 && i < len(t.LLCs) {
			return t.LLCs[i].CPUs, nil
		}
		return nil, fmt.Errorf("no last-level cache %d here, only 0 to %d", *s.LLC, len(t.LLCs)-1)
	case s.NUMA != nil:
		return t.node(*s.NUMA)
	case s.Range != nil:
		return t.share(s.Range.Start, s.Range.End)
	case s.Disjoint != nil:
		return t.part(s.Disjoint.Index, s.Disjoint.Of, 0)
	case s.Overlap != nil:
		return t.part(s.Overlap.Index, s.Overlap.Of, s.Overlap.Frac)
	}
	for _, cpu := range s.Exact {
		if !slices.Contains(t.Online, cpu) {
			return nil, fmt.Errorf("CPU %d is not online here, only %s", cpu, spec.CPUList(t.Online))
		}
	}
	return s.Exact, nil
}

func (t *Topology) node(id int) ([]int, error) {
	ids := make(spec.CPUList, len(t.Nodes))
	for i, n := range t.Nodes {
		if ids[i] = n.ID; n.ID != id {
			continue
		}
		if len(n.CPUs) == 0 {
			return nil, fmt.Errorf("NUMA node %d has no CPU", id)
		}
		return n.CPUs, nil
	}
	return nil, fmt.Errorf("no NUMA node %d here, only %s", id, ids)
}

// share is the usable CPUs from one share of them to another.
func (t *Topology) share(start, end float64) ([]int, error) {
	if !(start >= 0 && end <= 1 && start < end) {
		return nil, fmt.Errorf("%g to %g is no range; start below end, both 0 to 1", start, end)
	}
	usable := t.Usable()
	n := float64(len(usable))
	return usable[int(n*start):int(n*end)], nil
}

// part is one of equal parts of the usable CPUs, wider on both sides by a share
// of its size. The last part takes what is left over.
func (t *Topology) part(index, of int, frac float64) ([]int, error) {
	usable := t.Usable()
	switch {
	case of < 1 || index < 0 || index >= of:
		return nil, fmt.Errorf("no part %d of %d; index 0 to of-1", index, of)
	case math.IsNaN(frac) || frac < 0 || frac > 1:
		return nil, fmt.Errorf("frac %g is out of range; 0 to 1", frac)
	case len(usable) < of:
		return nil, fmt.Errorf("%d usable CPUs do not make %d parts", len(usable), of)
	}
	size := len(usable) / of
	from, to := index*size, (index+1)*size
	if index == of-1 {
		to = len(usable)
	}
	wider := int(float64(size) * frac)
	return usable[max(from-wider, 0):min(to+wider, len(usable))], nil
}

// Affinity turns an affinity of a spec into one without an intent: Exact or
// RandomSubset within the cpuset, nil for one that is nil. An empty cpuset stands
// for every online CPU. Errors name what the cpuset has not.
func (t *Topology) Affinity(a *spec.Affinity, cpuset []int) (*spec.Affinity, error) {
	if a == nil {
		return nil, nil
	}
	within := t.online(cpuset)
	switch {
	case len(cpuset) == 0:
		within = t.Online
	case len(within) == 0:
		return nil, fmt.Errorf("affinity: no CPU of the cpuset %s is online here", spec.CPUList(cpuset))
	}
	if r := a.RandomSubset; r != nil {
		pool := intersect(r.From, within)
		if len(pool) == 0 {
			return nil, fmt.Errorf("affinity.random_subset.from: %s has no CPU of %s", r.From, spec.CPUList(within))
		}
		return &spec.Affinity{RandomSubset: &spec.RandomSubset{From: pool, Count: min(r.Count, len(pool))}}, nil
	}
	if a.Intent == "" {
		cpus := intersect(a.Exact, within)
		if len(cpus) == 0 {
			return nil, fmt.Errorf("affinity.exact: %s has no CPU of %s", a.Exact, spec.CPUList(within))
		}
		return &spec.Affinity{Exact: cpus}, nil
	}
	cpus, err := t.intent(a.Intent, within)
	if err == nil && len(cpus) == 0 {
		err = fmt.Errorf("no CPU of %s is known", spec.CPUList(within))
	}
	if err != nil {
		return nil, fmt.Errorf("affinity: %s: %w", a.Intent, err)
	}
	return &spec.Affinity{Exact: slices.Clone(cpus)}, nil
}

// intent is the CPUs that an intent means in a set that is not empty.
func (t *Topology) intent(intent string, within []int) ([]int, error) {
	switch intent {
	case spec.AffinitySingleCPU:
		return within[:1], nil
	case spec.AffinityLLCAligned:
		var best []int
		for _, l := range t.LLCs {
			if cpus := intersect(l.CPUs, within); len(cpus) > len(best) {
				best = cpus
			}
		}
		return best, nil
	case spec.AffinityCrossCgroup:
		return t.Online, nil
	case spec.AffinitySMTSiblingPair:
		for _, c := range t.Cores {
			if cpus := intersect(c.CPUs, within); len(cpus) >= 2 {
				return cpus[:2], nil
			}
		}
		return nil, fmt.Errorf("no core has two siblings in %s; give the guest some with --topology, such as 1n1l2c2t", spec.CPUList(within))
	}
	return nil, fmt.Errorf("unknown intent")
}
