package spec

import (
	"math"
	"slices"
)

// Cpuset is a set of CPUs by the topology of the machine that runs the spec:
// exactly one field is set. In YAML a bare CPU list ("0-3,8") is exact.
type Cpuset struct {
	LLC      *int           `json:"llc,omitempty"`  // all CPUs of this last-level cache, from 0
	NUMA     *int           `json:"numa,omitempty"` // all CPUs of this NUMA node
	Range    *CpusetRange   `json:"range,omitempty"`
	Disjoint *CpusetPart    `json:"disjoint,omitempty"`
	Overlap  *CpusetOverlap `json:"overlap,omitempty"`
	Exact    CPUList        `json:"exact,omitempty"`
}

// CpusetRange is the usable CPUs from one share of them to another.
type CpusetRange struct {
	Start float64 `json:"start"` // 0 to 1, below End
	End   float64 `json:"end"`   // 0 to 1
}

// CpusetPart is one of equal parts of the usable CPUs; the last one takes what
// is left over.
type CpusetPart struct {
	Index int `json:"index"` // from 0, below Of
	Of    int `json:"of"`    // 1 to MaxCPU
}

// CpusetOverlap is a CpusetPart, wider on both sides by a share of its size.
type CpusetOverlap struct {
	Index int     `json:"index"` // from 0, below Of
	Of    int     `json:"of"`    // 1 to MaxCPU
	Frac  float64 `json:"frac"`  // 0 to 1
}

// cpuset reads an object of one key, or a bare CPU list.
func (d *decoder) cpuset(n *node, path string) *Cpuset {
	s := new(Cpuset)
	if n.kind != kindObject {
		d.cpuList(&s.Exact)(n, path)
		return s
	}
	d.object(n, path,
		field{"llc", d.index(&s.LLC)},
		field{"numa", d.index(&s.NUMA)},
		field{"range", func(n *node, path string) {
			s.Range = new(CpusetRange)
			d.needs(n, path,
				field{"start", d.fraction(&s.Range.Start)},
				field{"end", d.fraction(&s.Range.End)})
		}},
		field{"disjoint", func(n *node, path string) {
			s.Disjoint = new(CpusetPart)
			d.needs(n, path, d.part(&s.Disjoint.Index, &s.Disjoint.Of)...)
		}},
		field{"overlap", func(n *node, path string) {
			s.Overlap = new(CpusetOverlap)
			d.needs(n, path, append(d.part(&s.Overlap.Index, &s.Overlap.Of),
				field{"frac", d.fraction(&s.Overlap.Frac)})...)
		}},
		field{"exact", d.cpuList(&s.Exact)},
	)
	return s
}

func (d *decoder) part(index, of *int) []field {
	return []field{
		{"index", d.integer(0, MaxCPU-1, func(v int64) { *index = int(v) })},
		{"of", d.integer(1, MaxCPU, func(v int64) { *of = int(v) })},
	}
}

// index reads the number of a cache or node, from 0.
func (d *decoder) index(to **int) func(*node, string) {
	return d.integer(0, MaxCPU-1, func(v int64) { i := int(v); *to = &i })
}

// fraction reads a number from 0 to 1.
func (d *decoder) fraction(to *float64) func(*node, string) {
	return d.float(0, 1, func(v float64) { *to = v })
}

// float reads a number with or without a point, from lo to hi.
func (d *decoder) float(lo, hi float64, to func(float64)) func(*node, string) {
	return func(n *node, path string) {
		var v float64
		switch x := n.value.(type) {
		case float64:
			v = x
		case int64:
			v = float64(x)
		case uint64:
			v = float64(x)
		default:
			d.errorf(n, path, "is %s, want a number", describe(n))
			return
		}
		if !(v >= lo && v <= hi) { // NaN is in no range
			d.errorf(n, path, "%s is out of range; %g to %g", n.text, lo, hi)
			return
		}
		to(v)
	}
}

// forms names the fields that are set.
func (s *Cpuset) forms() (set []string) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"llc", s.LLC != nil}, {"numa", s.NUMA != nil}, {"range", s.Range != nil},
		{"disjoint", s.Disjoint != nil}, {"overlap", s.Overlap != nil}, {"exact", len(s.Exact) > 0},
	} {
		if f.set {
			set = append(set, f.name)
		}
	}
	return set
}

// cpuset checks what needs no topology.
func (c *checker) cpuset(path string, s *Cpuset) {
	switch set := s.forms(); {
	case len(set) == 0:
		c.errorf(path, "empty CPU set; name CPUs such as 0-3, or one of llc, numa, range, disjoint, overlap")
	case len(set) > 1:
		c.errorf(path, "has both %s and %s; keep one", set[0], set[1])
	case s.LLC != nil:
		c.inRange(path+".llc", *s.LLC, 0, MaxCPU-1)
	case s.NUMA != nil:
		c.inRange(path+".numa", *s.NUMA, 0, MaxNUMANode)
	case s.Range != nil:
		c.cpusetRange(path+".range", s.Range)
	case s.Disjoint != nil:
		c.cpusetPart(path+".disjoint", s.Disjoint.Index, s.Disjoint.Of)
	case s.Overlap != nil:
		c.cpusetPart(path+".overlap", s.Overlap.Index, s.Overlap.Of)
		c.share(path+".overlap.frac", s.Overlap.Frac)
	default:
		c.cpuList(path, s.Exact)
	}
}

func (c *checker) cpusetRange(path string, r *CpusetRange) {
	if c.share(path+".start", r.Start) && c.share(path+".end", r.End) && r.Start >= r.End {
		c.errorf(path, "from %g to %g is empty; start below end, such as {start: 0, end: 0.5}", r.Start, r.End)
	}
}

func (c *checker) cpusetPart(path string, index, of int) {
	if c.inRange(path+".of", of, 1, MaxCPU) {
		c.inRange(path+".index", index, 0, of-1)
	}
}

// share checks a number from 0 to 1.
func (c *checker) share(path string, v float64) bool {
	if v >= 0 && v <= 1 && !math.IsNaN(v) {
		return true
	}
	c.errorf(path, "%g is out of range; 0 to 1", v)
	return false
}

func (c *checker) inRange(path string, v, lo, hi int) bool {
	if v >= lo && v <= hi {
		return true
	}
	c.errorf(path, "%d is out of range; %d to %d", v, lo, hi)
	return false
}

// cpuList checks that a list is one that CPUList promises to be.
func (c *checker) cpuList(path string, list CPUList) {
	if bad := slices.IndexFunc(list, func(cpu int) bool { return cpu < 0 || cpu >= MaxCPU }); bad >= 0 {
		c.errorf(path, "CPU %d is out of range; 0 to %d", list[bad], MaxCPU-1)
		return
	}
	for i := 1; i < len(list); i++ {
		if list[i] <= list[i-1] {
			c.errorf(path, "CPU %d is out of order; ascending, none twice", list[i])
			return
		}
	}
}
