package spec

import (
	"slices"
	"strings"
)

// Affinity is where a group's workers may run: exactly one field is set. In YAML
// a bare string is an exact CPU list ("0-3,8"), an intent, or the word inherit.
type Affinity struct {
	Exact        CPUList       `json:"exact,omitempty"`
	RandomSubset *RandomSubset `json:"random_subset,omitempty"`
	Intent       string        `json:"intent,omitempty"` // one of the Affinity constants
}

// RandomSubset draws Count CPUs out of From anew for every worker.
type RandomSubset struct {
	From  CPUList `json:"from"`
	Count int     `json:"count"`
}

// What an affinity may leave to the topology of the machine that runs the spec,
// as Affinity.Intent names it.
const (
	AffinitySingleCPU      = "single_cpu"       // the first CPU of the cpuset
	AffinityLLCAligned     = "llc_aligned"      // of the cpuset, the CPUs of the last-level cache with most of them
	AffinityCrossCgroup    = "cross_cgroup"     // every CPU, beyond the cpuset too
	AffinitySMTSiblingPair = "smt_sibling_pair" // two siblings of one core of the cpuset
)

func affinityIntents() []string {
	return []string{AffinitySingleCPU, AffinityLLCAligned, AffinityCrossCgroup, AffinitySMTSiblingPair}
}

// affinity reads an affinity in any of its forms; inherit is nil.
func (d *decoder) affinity(n *node, path string) *Affinity {
	if n.kind == kindObject {
		return d.affinityObject(n, path)
	}
	if n.kind == kindString && strings.IndexFunc(n.text, isLetter) >= 0 {
		return d.affinityWord(n, path)
	}
	a := new(Affinity)
	d.cpuList(&a.Exact)(n, path)
	if len(a.Exact) == 0 && n.kind == kindString {
		d.emptyCPUs(n, path)
	}
	return a
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// emptyCPUs reports an empty set, unless the list was reported already.
func (d *decoder) emptyCPUs(n *node, path string) {
	if k := len(d.errs); k == 0 || !strings.HasPrefix(d.errs[k-1].Path, path) {
		d.errorf(n, path, "empty CPU set; use inherit for no affinity")
	}
}

func (d *decoder) affinityWord(n *node, path string) *Affinity {
	switch {
	case n.text == "inherit":
		return nil
	case slices.Contains(affinityIntents(), n.text):
		return &Affinity{Intent: n.text}
	}
	d.errorf(n, path, "unknown affinity %s%s", quote(n.text), suggest(n.text, append(affinityIntents(), "inherit", "exact", "random_subset")))
	return nil
}

func (d *decoder) affinityObject(n *node, path string) *Affinity {
	a := new(Affinity)
	d.object(n, path,
		field{"exact", func(n *node, path string) {
			d.cpuList(&a.Exact)(n, path)
			if len(a.Exact) == 0 {
				d.emptyCPUs(n, path)
			}
		}},
		field{"random_subset", func(n *node, path string) {
			a.RandomSubset = new(RandomSubset)
			d.object(n, path,
				field{"from", d.cpuList(&a.RandomSubset.From)},
				field{"count", d.integer(1, MaxCPU, func(v int64) { a.RandomSubset.Count = int(v) })})
		}},
		field{"intent", d.text(&a.Intent)},
	)
	return a
}

func (c *checker) affinity(path string, a *Affinity) {
	r := a.RandomSubset
	switch {
	case len(a.Exact) > 0 && r != nil:
		c.errorf(path, "has both exact and random_subset; keep one")
	case a.Intent != "" && (len(a.Exact) > 0 || r != nil):
		c.errorf(path, "has an intent and CPUs of its own; keep one")
	case a.Intent != "":
		c.oneOf(path+".intent", a.Intent, affinityIntents()...)
	case len(a.Exact) == 0 && r == nil:
		c.errorf(path+".exact", "empty CPU set; use inherit for no affinity")
	case r != nil && len(r.From) == 0:
		c.errorf(path+".random_subset.from", "empty CPU set; name the CPUs to draw from, such as 0-7")
	case r != nil && (r.Count < 1 || r.Count > len(r.From)):
		c.errorf(path+".random_subset.count", "%d is out of range; 1 to the %d CPUs of from", r.Count, len(r.From))
	}
	c.cpuList(path, a.Exact)
	if r != nil {
		c.cpuList(path, r.From)
	}
}
