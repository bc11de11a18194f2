package spec

// cgroup reads a cgroup.
func (d *decoder) cgroup(n *node, path string, c *Cgroup) {
	d.object(n, path,
		field{"name", d.text(&c.Name)},
		field{"cpuset", func(n *node, path string) { c.Cpuset = d.cpuset(n, path) }},
		field{"cpuset.mems", func(n *node, path string) {
			d.cpuList(&c.Mems)(n, path)
			if len(c.Mems) == 0 && !d.broken[path] {
				d.errorf(n, path, "names no node; give it one, such as 0, or leave it out")
			}
		}},
		field{"cpu.max", func(n *node, path string) { c.CPUMax = scalar(d, n, path, ParseCPUMax) }},
		field{"cpu.weight", d.integer(1, MaxWeight, func(v int64) { c.CPUWeight = int(v) })},
		field{"cpu.idle", func(n *node, path string) { d.flag(n, path, &c.CPUIdle) }},
		field{"cpu.uclamp.min", func(n *node, path string) { c.UclampMin = scalar(d, n, path, ParsePercent) }},
		field{"cpu.uclamp.max", func(n *node, path string) { c.UclampMax = scalar(d, n, path, ParsePercent) }},
		field{"memory.max", func(n *node, path string) { c.MemoryMax = scalar(d, n, path, ParseBytes) }},
		field{"memory.high", func(n *node, path string) { c.MemoryHigh = scalar(d, n, path, ParseBytes) }},
		field{"memory.low", func(n *node, path string) { c.MemoryLow = scalar(d, n, path, ParseBytes) }},
		field{"memory.swap.max", func(n *node, path string) { c.SwapMax = scalar(d, n, path, ParseBytes) }},
		field{"io.weight", d.integer(1, MaxWeight, func(v int64) { c.IOWeight = int(v) })},
		field{"pids.max", func(n *node, path string) { c.PidsMax = d.pidsMax(n, path) }},
		field{"optional", d.boolean(&c.Optional)},
		field{"defaults", func(n *node, path string) { c.Defaults = d.defaults(n, path) }},
		field{"checks", func(n *node, path string) { c.Checks = d.checks(n, path) }},
		field{"groups", func(n *node, path string) { d.groups(n, path, &c.Groups) }},
		field{"cgroups", func(n *node, path string) { d.cgroups(n, path, &c.Cgroups) }},
	)
}

func (d *decoder) cgroups(n *node, path string, to *[]Cgroup) {
	d.list(n, path, func(_ int, n *node, path string) {
		*to = append(*to, Cgroup{})
		d.cgroup(n, path, &(*to)[len(*to)-1])
	})
}

func (d *decoder) groups(n *node, path string, to *[]Group) {
	d.list(n, path, func(_ int, n *node, path string) {
		*to = append(*to, Group{})
		d.group(n, path, &(*to)[len(*to)-1])
	})
}

// scalar reads a text or a number with parse; nil after an error.
func scalar[T any](d *decoder, n *node, path string, parse func(string) (T, error)) *T {
	if n.kind != kindString && n.kind != kindNumber {
		d.errorf(n, path, "is %s, want text or a number", n.kind)
		return nil
	}
	v, err := parse(n.text)
	if err != nil {
		d.errorf(n, path, "%v", err)
		return nil
	}
	return &v
}

// flag reads true or false, or the kernel's 1 and 0.
func (d *decoder) flag(n *node, path string, to *bool) {
	switch n.value {
	case int64(0), int64(1):
		*to = n.value == int64(1)
	default:
		d.boolean(to)(n, path)
	}
}

// pidsMax reads a number or max.
func (d *decoder) pidsMax(n *node, path string) *PidsMax {
	p := new(PidsMax)
	if n.kind == kindString && n.text == "max" {
		return p
	}
	if n.kind == kindString { // canonical JSON has text
		if v := number(n.text); v != nil {
			n = &node{kind: kindNumber, text: n.text, value: v, line: n.line, col: n.col}
		}
	}
	d.integer(1, MaxPids, func(v int64) { *p = PidsMax(v) })(n, path)
	return p
}

// percent reads a percentage from above 0 to the highest.
func (d *decoder) percent(to *Percent, highest Percent) func(*node, string) {
	return func(n *node, path string) {
		v := scalar(d, n, path, ParsePercent)
		if v == nil {
			return
		}
		if *v < 1 || *v > highest {
			d.errorf(n, path, "%s is out of range; above 0 to %s", quote(n.text), highest)
			return
		}
		*to = *v
	}
}
