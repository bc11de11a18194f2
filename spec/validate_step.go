package spec

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// scenario checks what is in the spec beyond its header: that the parts are each
// right, and that what an op names is there when its turn comes.
func (c *checker) scenario(s *Spec) {
	if len(s.Steps) == 0 && s.Backdrop != nil {
		c.errorf("backdrop", "needs steps to stand behind; put its groups at the top level, or add steps")
	}
	if len(s.Steps) > 0 && (len(s.Groups) > 0 || len(s.Cgroups) > 0) {
		at := "groups"
		if len(s.Groups) == 0 {
			at = "cgroups"
		}
		c.errorf(at, "cannot stand beside steps; put them in backdrop, or in a step")
	}
	if !c.counts(s) {
		return
	}
	if s.Scheduler != nil {
		c.absolute("scheduler.path", s.Scheduler.Path)
		c.words("scheduler.args", s.Scheduler.Args)
	}
	g := newStage(c, s)
	if s.Backdrop != nil {
		g.step = BackdropStep
		g.setUp(s.Backdrop.Groups, s.Backdrop.Cgroups, "backdrop.")
		for i := range s.Backdrop.Programs {
			g.program(&s.Backdrop.Programs[i], at("backdrop.programs", i))
		}
		g.ops(s.Backdrop.Ops, "backdrop.ops")
	}
	if len(s.Steps) == 0 {
		g.step = 0
		g.setUp(s.Groups, s.Cgroups, "")
		return
	}
	c.holds(s)
	for i := range s.Steps {
		g.play(i, &s.Steps[i])
	}
}

// counts bounds the numbers of everything; false if it is not worth going on.
func (c *checker) counts(s *Spec) bool {
	cgroups, ops, groups, workers, inCgroups, programs := 0, 0, 0, 0, 0, 0
	s.visit(visitor{
		cgroup:  func(*Cgroup, string, string) { cgroups++ },
		program: func(*Program, string) { programs++ },
		op: func(o *Op, _ string) {
			if ops++; o.RunProgram != nil {
				programs++
			}
		},
		group: func(g Placed, _ Defaults) {
			groups++
			workers += max(g.Workers, 0)
			if g.Cgroup != "" {
				inCgroups++
			}
		},
	})
	where := "groups"
	if len(s.Steps) > 0 {
		where = "steps"
	}
	if groups == 0 || groups > MaxGroups {
		c.errorf(where, "has %d groups; 1 to %d", groups, MaxGroups)
	}
	if workers > MaxWorkers {
		c.errorf(where, "have %d workers together; at most %d", workers, MaxWorkers)
	}
	for _, n := range []struct {
		what       string
		have, most int
	}{{"steps", len(s.Steps), MaxSteps}, {"cgroups", cgroups, MaxCgroups}, {"ops", ops, MaxOps}, {"programs", programs, MaxPrograms}} {
		if n.have > n.most {
			c.errorf(where, "has %d %s; at most %d", n.have, n.what, n.most)
		}
	}
	if s.CloneMode == Thread && inCgroups > 0 {
		c.errorf("clone_mode", "thread cannot stand beside groups in cgroups: the threads are in the spawner's own; use fork")
	}
	return groups > 0 && groups <= MaxGroups && len(s.Steps) <= MaxSteps && cgroups <= MaxCgroups && ops <= MaxOps && programs <= MaxPrograms
}

// holds checks how long the steps last.
func (c *checker) holds(s *Spec) {
	named := time.Duration(0)
	sharing := -1
	for i := range s.Steps {
		h, path := s.Steps[i].Hold, at("steps", i)+".hold"
		if d, ok := h.length(s.Duration); ok {
			named += min(d, time.Duration(MaxDuration)) // so that no sum overflows
		} else {
			sharing = i
		}
		if h == nil {
			continue
		}
		switch {
		case h.Fixed != nil && h.Fraction != 0:
			c.errorf(path, "has both fixed and fraction; keep one")
		case h.Fixed != nil && (*h.Fixed < 0 || *h.Fixed > MaxDuration):
			c.errorf(path+".fixed", "%s is out of range; 0s to %s", *h.Fixed, MaxDuration)
		case !(h.Fraction >= 0 && h.Fraction <= 1):
			c.errorf(path+".fraction", "%g is out of range; above 0 to 1", h.Fraction)
		}
		if h.Loop == nil {
			continue
		}
		if h.Loop.Interval < MinDuration || h.Loop.Interval > MaxDuration {
			c.errorf(path+".loop.interval", "%s is out of range; %s to %s", h.Loop.Interval, MinDuration, MaxDuration)
		}
		if len(s.Steps[i].Ops) == 0 {
			c.errorf(path+".loop", "has no ops to do; give the step some, or leave the loop out")
		}
	}
	total := time.Duration(s.Duration)
	const rounding = 1000 // of fractions, in nanoseconds
	switch {
	case named > total+rounding:
		c.errorf("steps", "hold for %v together; at most the duration, %v", named, total)
	case sharing >= 0 && named >= total:
		c.errorf(at("steps", sharing)+".hold", "nothing of the duration, %v, is left for it; shorten other steps, or give it a hold", total)
	}
}

// stage is what is there while a spec is played.
type stage struct {
	*checker
	spec     *Spec
	step     int
	round    int // of a loop, from 0
	loop     bool
	cgroups  map[string]*stageCgroup
	groups   map[string]*stageGroup
	programs map[string]*stageProgram
	met      map[string][]*stageGroup // by name: those that run at any time in the step
}

type stageCgroup struct {
	step     int
	groups   bool // processes may be in it
	children int
}

type stageGroup struct {
	step      int
	path      string
	cgroup    string
	born      string // the cgroup that the report has
	container bool
}

type stageProgram struct {
	step   int
	path   string
	cgroup string // where it is now
}

func newStage(c *checker, s *Spec) *stage {
	return &stage{checker: c, spec: s, cgroups: map[string]*stageCgroup{}, groups: map[string]*stageGroup{}, programs: map[string]*stageProgram{}}
}

// play plays a step. The ops of a loop are played twice, so that what they leave
// behind meets them again.
func (g *stage) play(i int, s *Step) {
	g.step = i
	path := at("steps", i)
	g.name(path+".name", s.Name)
	for j := range i {
		if g.spec.Steps[j].Name == s.Name {
			g.errorf(path+".name", "%s is the name of steps[%d] already", quote(s.Name), j)
			break
		}
	}
	g.met = map[string][]*stageGroup{}
	for name := range g.groups {
		g.meet(name)
	}
	g.setUp(s.Groups, s.Cgroups, path+".")
	g.loop = s.Hold != nil && s.Hold.Loop != nil
	g.ops(s.Ops, path+".ops")
	if g.loop {
		g.round = 1
		g.ops(s.Ops, path+".ops")
	}
	g.loop, g.round = false, 0
	g.stepChecks(s, path)
	for name, c := range g.cgroups {
		if c.step == i {
			g.forget(name)
		}
	}
	for name, x := range g.groups {
		if x.step == i {
			delete(g.groups, name)
		}
	}
	for name, p := range g.programs {
		if p.step == i {
			delete(g.programs, name)
		}
	}
}

func (g *stage) meet(name string) {
	if g.met != nil {
		g.met[name] = append(g.met[name], g.groups[name])
	}
}

// stepChecks checks the thresholds of a step, once it was played.
func (g *stage) stepChecks(s *Step, path string) {
	if s.Checks != nil {
		g.checks(path+".checks", s.Checks)
	}
	for i := range s.ChecksOf {
		g.checksOf(&s.ChecksOf[i], at(path+".checks_of", i))
	}
}

func (g *stage) checksOf(of *ChecksOf, path string) {
	switch {
	case of.Cgroup == "" && of.Group == "":
		g.errorf(path, "is of nothing; name a cgroup or a group, or use checks for all of the step")
	case of.Cgroup != "" && of.Group != "":
		g.errorf(path, "has both cgroup and group; write two elements")
	case of.Group != "" && g.met[of.Group] == nil:
		g.errorf(path+".group", "no group %s runs in this step%s", quote(of.Group), suggest(of.Group, slices.Sorted(maps.Keys(g.met))))
	case of.Cgroup != "":
		g.bornIn(path+".cgroup", of.Cgroup)
	}
	if of.Checks == nil {
		g.errorf(path+".checks", "is missing; the thresholds, such as {max_gap: 1s}")
		return
	}
	g.checks(path+".checks", of.Checks)
}

// bornIn checks that a group that runs in the step was born in the cgroup: only
// such a group is judged by it.
func (g *stage) bornIn(path, cgroup string) {
	var homes []string
	for _, groups := range g.met {
		for _, x := range groups {
			if x.born != "" && within(x.born, cgroup) {
				return
			}
			homes = append(homes, x.born)
		}
	}
	homes = slices.DeleteFunc(homes, func(s string) bool { return s == "" })
	slices.Sort(homes)
	hint := ""
	if homes = slices.Compact(homes); len(homes) > 0 {
		hint = suggest(cgroup, homes)
	}
	g.errorf(path, "no group that runs in this step was born in cgroup %s%s", quote(cgroup), hint)
}

// forget takes a cgroup away.
func (g *stage) forget(name string) {
	delete(g.cgroups, name)
	if outer := g.cgroups[path.Dir(name)]; outer != nil {
		outer.children--
	}
}

func (g *stage) setUp(groups []Group, cgroups []Cgroup, prefix string) {
	g.addGroups(groups, prefix+"groups", "")
	for i := range cgroups {
		g.addCgroup(&cgroups[i], at(prefix+"cgroups", i), "")
	}
}

func (g *stage) addGroups(groups []Group, path, cgroup string) {
	for i := range groups {
		x, path := &groups[i], at(path, i)
		g.group(path, x)
		if other := g.groups[x.Name]; other != nil {
			g.errorf(path+".name", "%s is the name of %s already", quote(x.Name), other.path)
		}
		g.groups[x.Name] = &stageGroup{g.step, path, cgroup, cgroup, x.Pcomm != ""}
		g.meet(x.Name)
	}
	if c := g.cgroups[cgroup]; c != nil && len(groups) > 0 {
		c.groups = true
	}
}

// addCgroup checks a cgroup with all that is in it.
func (g *stage) addCgroup(c *Cgroup, path, outer string) {
	name := c.Name
	if outer != "" {
		name = outer + "/" + name
	}
	if !g.cgroupName(path+".name", c.Name) {
		return
	}
	g.placeCgroup(c, path, name)
}

// placeCgroup checks a cgroup of a good name.
func (g *stage) placeCgroup(c *Cgroup, path, name string) {
	g.limits(path, c)
	switch {
	case g.cgroups[name] != nil:
		g.errorf(path+".name", "there is a cgroup %s already%s", quote(name), g.again())
		return
	case strings.Count(name, "/") >= MaxCgroupDepth:
		g.errorf(path+".name", "cgroup %s is nested too deep; at most %d levels", quote(name), MaxCgroupDepth)
		return
	case len(c.Groups) > 0 && len(c.Cgroups) > 0:
		g.errorf(path+".groups", "cannot stand beside cgroups: the kernel keeps processes in leaves; put them in a cgroup of their own")
	}
	g.cgroups[name] = &stageCgroup{step: g.step}
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		if outer := g.cgroups[name[:i]]; outer != nil {
			outer.children++
		}
	}
	g.addGroups(c.Groups, path+".groups", name)
	for i := range c.Cgroups {
		g.addCgroup(&c.Cgroups[i], at(path+".cgroups", i), name)
	}
}

// again says of an error that only the second turn of a loop has.
func (g *stage) again() string {
	if g.round > 0 {
		return " when the loop comes round"
	}
	return ""
}
