package spec

import (
	"strings"
)

// limits checks the ranges of a cgroup's files.
func (c *checker) limits(path string, g *Cgroup) {
	if g.Cpuset != nil {
		c.cpuset(path+".cpuset", g.Cpuset)
	}
	if n := len(g.Mems); n > 0 {
		c.cpuList(path+".cpuset.mems", g.Mems)
		c.inRange(path+".cpuset.mems", g.Mems[n-1], 0, MaxNUMANode)
	}
	if g.CPUMax != nil {
		if err := g.CPUMax.check(g.CPUMax.String()); err != nil {
			c.errorf(path+".cpu.max", "%v", err)
		}
	}
	for _, w := range []struct {
		file  string
		value int
	}{{"cpu.weight", g.CPUWeight}, {"io.weight", g.IOWeight}} {
		if w.value != 0 {
			c.inRange(path+"."+w.file, w.value, 1, MaxWeight)
		}
	}
	if g.CPUIdle && g.CPUWeight != 0 {
		c.errorf(path+".cpu.weight", "an idle cgroup has no weight of its own; keep cpu.idle or cpu.weight")
	}
	c.uclamp(path, g)
	if p := g.PidsMax; p != nil {
		c.inRange(path+".pids.max", int(*p), 0, MaxPids)
	}
	if g.Checks != nil {
		c.checks(path+".checks", g.Checks)
	}
	if g.Defaults != nil {
		d := Group{}
		d.inherit(*g.Defaults)
		c.attributes(path+".defaults", &d)
	}
}

func (c *checker) uclamp(path string, g *Cgroup) {
	for _, u := range []struct {
		file  string
		value *Percent
	}{{"cpu.uclamp.min", g.UclampMin}, {"cpu.uclamp.max", g.UclampMax}} {
		if u.value != nil && (*u.value < 0 || *u.value > 10_000) {
			c.errorf(path+"."+u.file, "%s is out of range; 0%% to 100%%", *u.value)
		}
	}
	if g.UclampMin != nil && g.UclampMax != nil && *g.UclampMin > *g.UclampMax {
		c.errorf(path+".cpu.uclamp.min", "%s is above cpu.uclamp.max, %s", *g.UclampMin, *g.UclampMax)
	}
}

// controllers are the prefixes of file names in a cgroup's directory.
var controllers = []string{"cgroup.", "cpu.", "cpuset.", "memory.", "io.", "pids.", "hugetlb.", "rdma.", "misc.", "perf_event.", "dmem.", "irq."}

// cgroupName checks one element of a path.
func (c *checker) cgroupName(path, name string) bool {
	if name == "" {
		c.errorf(path, "is missing; name the cgroup, such as cell-a")
		return false
	}
	odd := strings.IndexFunc(name, func(r rune) bool {
		return !isLetter(r) && !(r >= '0' && r <= '9') && !strings.ContainsRune("-_.:@", r)
	}) >= 0
	if odd || len(name) > MaxCgroupNameLen || strings.Trim(name, ".") == "" {
		c.errorf(path, "%s is no name of a cgroup; 1 to %d letters, digits, and any of - _ . : @", quote(name), MaxCgroupNameLen)
		return false
	}
	for _, prefix := range controllers {
		if strings.HasPrefix(name, prefix) {
			c.errorf(path, "%s looks like a file of the kernel's; a name may not begin with %s", quote(name), prefix)
			return false
		}
	}
	return true
}
