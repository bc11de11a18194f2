package spec

import "strings"

func (d *decoder) scheduler(n *node, path string) *Scheduler {
	s := new(Scheduler)
	if n.kind == kindString {
		d.text(&s.Path)(n, path)
		return s
	}
	d.object(n, path, field{"path", d.text(&s.Path)}, field{"args", d.texts(&s.Args)})
	return s
}

func (d *decoder) backdrop(n *node, path string) *Backdrop {
	b := new(Backdrop)
	d.object(n, path,
		field{"cgroups", func(n *node, path string) { d.cgroups(n, path, &b.Cgroups) }},
		field{"groups", func(n *node, path string) { d.groups(n, path, &b.Groups) }},
		field{"programs", func(n *node, path string) {
			d.list(n, path, func(_ int, n *node, path string) {
				b.Programs = append(b.Programs, Program{})
				d.program(n, path, &b.Programs[len(b.Programs)-1])
			})
		}},
		field{"ops", func(n *node, path string) { d.ops(n, path, &b.Ops) }},
	)
	return b
}

func (d *decoder) step(n *node, path string, s *Step) {
	d.object(n, path,
		field{"name", d.text(&s.Name)},
		field{"checks", func(n *node, path string) { s.Checks = d.checks(n, path) }},
		field{"checks_of", func(n *node, path string) { d.checksOf(n, path, &s.ChecksOf) }},
		field{"cgroups", func(n *node, path string) { d.cgroups(n, path, &s.Cgroups) }},
		field{"groups", func(n *node, path string) { d.groups(n, path, &s.Groups) }},
		field{"ops", func(n *node, path string) { d.ops(n, path, &s.Ops) }},
		field{"hold", func(n *node, path string) { s.Hold = d.hold(n, path) }},
	)
}

func (d *decoder) checksOf(n *node, path string, to *[]ChecksOf) {
	d.list(n, path, func(_ int, n *node, path string) {
		var of ChecksOf
		d.object(n, path,
			field{"cgroup", d.text(&of.Cgroup)},
			field{"group", d.text(&of.Group)},
			field{"checks", func(n *node, path string) { of.Checks = d.checks(n, path) }})
		*to = append(*to, of)
	})
}

// hold reads an object, a duration ("2s"), a percentage ("50%"), a fraction (0.5)
// or "full".
func (d *decoder) hold(n *node, path string) *Hold {
	h := new(Hold)
	switch {
	case n.kind == kindObject:
		d.object(n, path,
			field{"fraction", func(n *node, path string) { d.holdFraction(n, path, h) }},
			field{"fixed", func(n *node, path string) {
				h.Fixed = new(Duration)
				d.duration(h.Fixed)(n, path)
			}},
			field{"loop", func(n *node, path string) { h.Loop = d.loop(n, path) }},
		)
	case n.kind == kindNumber, n.kind == kindString && (n.text == "full" || strings.HasSuffix(n.text, "%")):
		d.holdFraction(n, path, h)
	default:
		h.Fixed = new(Duration)
		d.duration(h.Fixed)(n, path)
	}
	return h
}

// holdFraction reads a fraction, a percentage or "full".
func (d *decoder) holdFraction(n *node, path string, h *Hold) {
	switch {
	case n.kind == kindString && n.text == "full":
		h.Fraction = 1
	case n.kind == kindString:
		var p Percent
		if d.percent(&p, 10_000)(n, path); p > 0 {
			h.Fraction = float64(p) / 10_000
		}
	default:
		d.float(0, 1, func(v float64) { h.Fraction = v })(n, path)
		if h.Fraction == 0 && !d.broken[path] {
			d.errorf(n, path, "is 0; above 0 to 1, or a fixed hold of 0s")
		}
	}
}

// loop reads an interval, bare or as an object.
func (d *decoder) loop(n *node, path string) *Loop {
	l := new(Loop)
	if n.kind != kindObject {
		d.duration(&l.Interval)(n, path)
		return l
	}
	d.object(n, path, field{"interval", d.duration(&l.Interval)})
	return l
}

func (d *decoder) ops(n *node, path string, to *[]Op) {
	d.list(n, path, func(_ int, n *node, path string) {
		*to = append(*to, Op{})
		d.op(n, path, &(*to)[len(*to)-1])
	})
}

func (d *decoder) op(n *node, path string, o *Op) {
	before := len(d.errs)
	defer func() {
		if len(d.errs) > before {
			d.broken[path] = true // what it is may be what was not read
		}
	}()
	d.object(n, path,
		field{"add_cgroup", func(n *node, path string) {
			o.AddCgroup = new(Cgroup)
			if n.kind == kindString {
				d.text(&o.AddCgroup.Name)(n, path)
				return
			}
			d.cgroup(n, path, o.AddCgroup)
		}},
		field{"remove_cgroup", d.text(&o.RemoveCgroup)},
		field{"stop_cgroup", d.text(&o.StopCgroup)},
		field{"freeze", d.text(&o.Freeze)},
		field{"thaw", d.text(&o.Thaw)},
		field{"set_cpuset", func(n *node, path string) {
			o.SetCpuset = new(SetCpuset)
			d.object(n, path, field{"cgroup", d.text(&o.SetCpuset.Cgroup)},
				field{"cpuset", func(n *node, path string) { o.SetCpuset.Cpuset = d.cpuset(n, path) }})
		}},
		field{"clear_cpuset", d.text(&o.ClearCpuset)},
		field{"swap_cpusets", d.texts(&o.SwapCpusets)},
		field{"spawn", func(n *node, path string) {
			o.Spawn = new(Spawn)
			d.object(n, path, field{"cgroup", d.text(&o.Spawn.Cgroup)},
				field{"groups", func(n *node, path string) { d.groups(n, path, &o.Spawn.Groups) }})
		}},
		field{"set_affinity", func(n *node, path string) {
			o.SetAffinity = new(SetAffinity)
			d.object(n, path, field{"group", d.text(&o.SetAffinity.Group)},
				field{"affinity", func(n *node, path string) { o.SetAffinity.Affinity = d.affinity(n, path) }})
		}},
		field{"move_tasks", func(n *node, path string) {
			o.MoveTasks = new(MoveTasks)
			d.object(n, path, field{"from", d.text(&o.MoveTasks.From)}, field{"to", d.text(&o.MoveTasks.To)})
		}},
		field{"run_program", func(n *node, path string) {
			o.RunProgram = new(Program)
			d.program(n, path, o.RunProgram)
		}},
		field{"wait_program", func(n *node, path string) { o.WaitProgram = d.waitProgram(n, path) }},
		field{"kill_program", d.text(&o.KillProgram)},
	)
}

// program reads a program, or a bare path.
func (d *decoder) program(n *node, path string, p *Program) {
	if n.kind == kindString {
		d.text(&p.Path)(n, path)
		return
	}
	d.object(n, path,
		field{"name", d.text(&p.Name)},
		field{"path", d.text(&p.Path)},
		field{"args", d.texts(&p.Args)},
		field{"env", d.texts(&p.Env)},
		field{"cgroup", d.text(&p.Cgroup)},
		field{"may_fail", d.boolean(&p.MayFail)},
	)
}

// waitProgram reads an object, or a bare name.
func (d *decoder) waitProgram(n *node, path string) *WaitProgram {
	w := new(WaitProgram)
	if n.kind == kindString {
		d.text(&w.Program)(n, path)
		return w
	}
	d.object(n, path, field{"program", d.text(&w.Program)}, field{"timeout", d.duration(&w.Timeout)})
	return w
}

// texts reads a list of texts, of which some may be empty; numbers count as text.
func (d *decoder) texts(to *[]string) func(*node, string) {
	return func(n *node, path string) {
		d.list(n, path, func(_ int, n *node, path string) {
			if n.kind != kindString && n.kind != kindNumber {
				d.errorf(n, path, "is %s, want text", n.kind)
				return
			}
			*to = append(*to, n.text)
		})
	}
}
