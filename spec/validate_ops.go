package spec

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

func (g *stage) ops(ops []Op, path string) {
	for i := range ops {
		before := len(g.errs)
		g.op(&ops[i], at(path, i))
		if g.round > 0 && len(g.errs) > before { // what the first turn had already is said
			g.errs = g.errs[:before+g.news(g.errs[before:])]
		}
	}
}

// news keeps those of the errors that stand for the first time, and counts them.
func (g *stage) news(errs []*Error) int {
	earlier := g.errs[:len(g.errs)-len(errs)]
	kept := 0
	for _, e := range errs {
		if !slices.ContainsFunc(earlier, func(o *Error) bool { return o.Path == e.Path }) {
			errs[kept] = e
			kept++
		}
	}
	return kept
}

func (g *stage) op(o *Op, path string) {
	var set []string
	for _, f := range o.fields() {
		if f.set {
			set = append(set, f.name)
		}
	}
	if len(set) != 1 {
		if len(set) == 0 {
			g.errorf(path, "has no operation; one of %s", strings.Join(opNames(), ", "))
		} else {
			g.errorf(path, "has both %s and %s; write two ops", set[0], set[1])
		}
		return
	}
	path += "." + set[0]
	switch {
	case o.AddCgroup != nil:
		g.opAdd(o.AddCgroup, path)
	case o.RemoveCgroup != "":
		if g.exists(path, o.RemoveCgroup) {
			g.stop(o.RemoveCgroup)
			g.remove(o.RemoveCgroup)
		}
	case o.StopCgroup != "":
		if g.exists(path, o.StopCgroup) && !g.stop(o.StopCgroup) && g.round == 0 {
			g.errorf(path, "no group runs in cgroup %s", quote(o.StopCgroup))
		}
	case o.Spawn != nil:
		g.opSpawn(o.Spawn, path)
	case o.SetCpuset != nil:
		if g.exists(path+".cgroup", o.SetCpuset.Cgroup); o.SetCpuset.Cpuset == nil {
			g.errorf(path+".cpuset", "is missing; name CPUs, or use clear_cpuset")
		} else {
			g.cpuset(path+".cpuset", o.SetCpuset.Cpuset)
		}
	case len(o.SwapCpusets) > 0:
		g.opSwap(o.SwapCpusets, path)
	case o.SetAffinity != nil:
		g.opAffinity(o.SetAffinity, path)
	case o.MoveTasks != nil:
		g.opMove(o.MoveTasks, path)
	case o.RunProgram != nil:
		g.program(o.RunProgram, path)
	case o.WaitProgram != nil:
		g.opWait(o.WaitProgram, path)
	case o.KillProgram != "":
		g.ends(path, o.KillProgram)
	default:
		g.exists(path, cmp.Or(o.Freeze, o.Thaw, o.ClearCpuset))
	}
}

func opNames() []string {
	var names []string
	for _, f := range new(Op).fields() {
		names = append(names, f.name)
	}
	return names
}

// exists checks that a cgroup is there.
func (g *stage) exists(path, name string) bool {
	if g.cgroups[name] != nil {
		return true
	}
	if name == "" {
		g.errorf(path, "is missing; name a cgroup")
	} else {
		g.errorf(path, "no cgroup %s is there then%s%s", quote(name), g.again(), g.hint(name))
	}
	return false
}

func (g *stage) hint(name string) string {
	if names := slices.Sorted(maps.Keys(g.cgroups)); len(names) > 0 {
		return suggest(name, names)
	}
	return ""
}

// isLeaf checks that processes can be in a cgroup.
func (g *stage) isLeaf(path, name string) bool {
	if !g.exists(path, name) {
		return false
	}
	if g.cgroups[name].children > 0 {
		g.errorf(path, "cgroup %s has cgroups inside: the kernel keeps processes in leaves; name one of those", quote(name))
		return false
	}
	return true
}

func (g *stage) opAdd(c *Cgroup, path string) {
	name := c.Name
	for _, element := range strings.Split(name, "/") {
		if !g.cgroupName(path+".name", element) {
			return
		}
	}
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		if !g.exists(path+".name", name[:i]) {
			return
		}
		if g.cgroups[name[:i]].groups {
			g.errorf(path+".name", "cgroup %s has groups: the kernel keeps processes in leaves; add beside it", quote(name[:i]))
			return
		}
	}
	if g.loop && starts(c) {
		g.errorf(path, "a loop cannot start groups in every turn; give the step the cgroup")
		return
	}
	g.placeCgroup(c, path, name)
}

// starts tells whether groups are in a cgroup.
func starts(c *Cgroup) bool {
	return len(c.Groups) > 0 || slices.ContainsFunc(c.Cgroups, func(c Cgroup) bool { return starts(&c) })
}

func (g *stage) opSpawn(s *Spawn, path string) {
	switch {
	case g.loop:
		g.errorf(path, "a loop cannot start groups in every turn; give the step the groups")
		return
	case len(s.Groups) == 0:
		g.errorf(path+".groups", "is missing; the groups to start")
	case s.Cgroup != "" && !g.isLeaf(path+".cgroup", s.Cgroup):
		return
	}
	g.addGroups(s.Groups, path+".groups", s.Cgroup)
}

func within(name, outer string) bool {
	return name == outer || strings.HasPrefix(name, outer+"/")
}

// stop takes the groups in a cgroup away; false if there were none.
func (g *stage) stop(name string) bool {
	found := false
	for n, x := range g.groups {
		if x.cgroup != "" && within(x.cgroup, name) {
			delete(g.groups, n)
			found = true
		}
	}
	for n, c := range g.cgroups {
		if within(n, name) {
			c.groups = false
		}
	}
	return found
}

// remove takes a cgroup away, with those inside and the programs in them.
func (g *stage) remove(name string) {
	for n, p := range g.programs {
		if p.cgroup != "" && within(p.cgroup, name) {
			delete(g.programs, n)
		}
	}
	for n := range g.cgroups {
		if n != name && within(n, name) {
			delete(g.cgroups, n)
		}
	}
	g.forget(name)
}

func (g *stage) opSwap(names []string, path string) {
	if len(names) != 2 || names[0] == names[1] {
		g.errorf(path, "wants two cgroups, such as [a, b]")
		return
	}
	for i, name := range names {
		g.exists(at(path, i), name)
	}
}

func (g *stage) opAffinity(a *SetAffinity, path string) {
	x := g.groups[a.Group]
	switch {
	case x == nil && a.Group == "":
		g.errorf(path+".group", "is missing; name a group")
	case x == nil:
		names := slices.Sorted(maps.Keys(g.groups))
		g.errorf(path+".group", "no group %s runs then%s%s", quote(a.Group), g.again(), suggest(a.Group, names))
	case x.container:
		g.errorf(path+".group", "group %s is a container; give it an affinity of its own, or leave pcomm out", quote(a.Group))
	}
	if a.Affinity != nil {
		g.affinity(path+".affinity", a.Affinity)
	}
}

func (g *stage) opMove(m *MoveTasks, path string) {
	from, to := g.exists(path+".from", m.From), g.isLeaf(path+".to", m.To)
	switch {
	case !from || !to:
	case m.From == m.To:
		g.errorf(path+".to", "is the cgroup that the tasks are in")
	case g.cgroups[m.From].step == BackdropStep && g.cgroups[m.To].step != BackdropStep:
		g.errorf(path+".to", "cgroup %s goes with its step, and tasks of the backdrop do not; move them to a cgroup of the backdrop", quote(m.To))
	default:
		g.cgroups[m.To].groups = true
		for _, x := range g.groups {
			if x.cgroup == m.From {
				x.cgroup = m.To
			}
		}
		for _, p := range g.programs {
			if p.cgroup == m.From {
				p.cgroup = m.To
			}
		}
	}
}

// program checks a program and has it run.
func (g *stage) program(p *Program, path string) {
	g.absolute(path+".path", p.Path)
	g.words(path+".args", p.Args)
	g.words(path+".env", p.Env)
	for i, v := range p.Env {
		if !strings.Contains(v[min(1, len(v)):], "=") {
			g.errorf(at(path+".env", i), "%s is no variable; write KEY=VALUE", quote(v))
		}
	}
	if p.Name != "" || p.Path != "" { // else the path is what is missing
		g.name(path+".name", p.Name)
	}
	if p.Cgroup != "" && g.isLeaf(path+".cgroup", p.Cgroup) {
		g.cgroups[p.Cgroup].groups = true
	}
	if other := g.programs[p.Name]; other != nil {
		g.errorf(path+".name", "program %s of %s still runs%s; wait_program or kill_program before, or give it another name", quote(p.Name), other.path, g.again())
	}
	g.programs[p.Name] = &stageProgram{g.step, path, p.Cgroup}
}

func (g *stage) opWait(w *WaitProgram, path string) {
	g.ends(path+".program", w.Program)
	if w.Timeout < MinDuration || w.Timeout > MaxWaitProgram {
		g.errorf(path+".timeout", "%s is out of range; %s to %s", w.Timeout, MinDuration, MaxWaitProgram)
	}
}

// ends has a program end.
func (g *stage) ends(path, name string) {
	if g.programs[name] == nil {
		g.errorf(path, "no program %s was started by then%s", quote(name), g.again())
	}
	delete(g.programs, name)
}

// absolute checks the path of a program.
func (c *checker) absolute(path, v string) {
	switch {
	case v == "":
		c.errorf(path, "is missing; the absolute path of the program where the workload runs")
	case v[0] != '/' || len(v) > MaxProgramText || strings.ContainsRune(v, 0):
		c.errorf(path, "%s is no absolute path; it is looked up where the workload runs", quote(v))
	}
}

// words checks arguments or variables.
func (c *checker) words(path string, words []string) {
	if len(words) > MaxProgramWords {
		c.errorf(path, "has %d elements; at most %d", len(words), MaxProgramWords)
	}
	for i, w := range words {
		if len(w) > MaxProgramText || strings.ContainsRune(w, 0) {
			c.errorf(at(path, i), "%s is too long or has a NUL; at most %d bytes", quote(w), MaxProgramText)
		}
	}
}
