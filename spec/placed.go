package spec

import (
	"cmp"
	"fmt"
	"maps"
	gopath "path"
	"strings"
)

// BackdropStep is the Step of what lives in the backdrop.
const BackdropStep = -1

// Placed is a group of a spec, and where and when it runs.
type Placed struct {
	*Group
	Path   string // of its field: "steps[1].cgroups[0].groups[2]"
	Cgroup string // path, "outer/inner"; "" for none
	Step   int    // index into Steps, 0 in a spec without them, or BackdropStep
}

// Placed lists all groups of the spec. Their order is that of the report's group
// indexes: the backdrop's, then step by step; of each the groups outside of all
// cgroups, then those of cgroups, then those that ops start.
func (s *Spec) Placed() []Placed {
	var placed []Placed
	s.visit(visitor{group: func(g Placed, _ Defaults) { placed = append(placed, g) }})
	return placed
}

// Workers is the number of workers of all groups. Those of a group with
// workers_pct are not known before the run and count as 0.
func (s *Spec) Workers() int {
	n := 0
	for _, g := range s.Placed() {
		n += g.Workers
	}
	return n
}

// Elastic tells whether the number of workers depends on the machine: some group
// has workers_pct.
func (s *Spec) Elastic() bool {
	for _, g := range s.Placed() {
		if g.WorkersPct != 0 {
			return true
		}
	}
	return false
}

// StepName is the name of a step as reports have it: "backdrop" for BackdropStep,
// "" in a spec without steps.
func (s *Spec) StepName(step int) string {
	switch {
	case step == BackdropStep:
		return "backdrop"
	case step < len(s.Steps):
		return s.Steps[step].Name
	}
	return ""
}

// visitor is told of the parts of a spec, in order. Functions that are nil are
// skipped.
type visitor struct {
	group   func(g Placed, inherited Defaults)
	cgroup  func(c *Cgroup, path, name string) // before what is in it; name is its path
	op      func(o *Op, path string)           // before what it brings
	program func(p *Program, path string)      // of the backdrop; those of ops come with op
	step    int
	given   map[string]Defaults // by the cgroups of the backdrop and of the step, by path
}

// visit tells v of everything in the spec.
func (s *Spec) visit(v visitor) {
	v.given = map[string]Defaults{}
	if b := s.Backdrop; b != nil {
		v.step = BackdropStep
		v.groups(b.Groups, "backdrop.groups", "", Defaults{})
		v.cgroups(b.Cgroups, "backdrop.cgroups", "", Defaults{})
		for i := range b.Programs {
			if v.program != nil {
				v.program(&b.Programs[i], at("backdrop.programs", i))
			}
		}
		v.ops(b.Ops, "backdrop.ops")
	}
	v.step = 0
	v.groups(s.Groups, "groups", "", Defaults{})
	v.cgroups(s.Cgroups, "cgroups", "", Defaults{})
	backdrop := v.given
	for i := range s.Steps {
		v.step, v.given = i, maps.Clone(backdrop)
		path := at("steps", i)
		v.groups(s.Steps[i].Groups, path+".groups", "", Defaults{})
		v.cgroups(s.Steps[i].Cgroups, path+".cgroups", "", Defaults{})
		v.ops(s.Steps[i].Ops, path+".ops")
	}
}

func (v *visitor) groups(groups []Group, path, cgroup string, inherited Defaults) {
	for i := range groups {
		if v.group != nil {
			v.group(Placed{&groups[i], at(path, i), cgroup, v.step}, inherited)
		}
	}
}

func (v *visitor) cgroups(cgroups []Cgroup, path, outer string, inherited Defaults) {
	for i := range cgroups {
		v.cgroupAt(&cgroups[i], at(path, i), outer, inherited)
	}
}

func (v *visitor) cgroupAt(c *Cgroup, path, outer string, inherited Defaults) {
	name := c.Name
	if outer != "" {
		name = outer + "/" + c.Name
	}
	if v.cgroup != nil {
		v.cgroup(c, path, name)
	}
	if c.Defaults != nil {
		inherited = c.Defaults.over(inherited)
	}
	v.given[name] = inherited
	v.groups(c.Groups, path+".groups", name, inherited)
	v.cgroups(c.Cgroups, path+".cgroups", name, inherited)
}

func (v *visitor) ops(ops []Op, path string) {
	for i := range ops {
		o, at := &ops[i], at(path, i)
		if v.op != nil {
			v.op(o, at)
		}
		if o.AddCgroup != nil {
			v.cgroupAt(o.AddCgroup, at+".add_cgroup", "", v.given[gopath.Dir(o.AddCgroup.Name)])
		}
		if o.Spawn != nil {
			v.groups(o.Spawn.Groups, at+".spawn.groups", o.Spawn.Cgroup, v.given[o.Spawn.Cgroup])
		}
	}
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// over is d with what it leaves out taken from outer.
func (d Defaults) over(outer Defaults) Defaults {
	d.Affinity = cmp.Or(d.Affinity, outer.Affinity)
	d.Sched = cmp.Or(d.Sched, outer.Sched)
	d.MemPolicy = cmp.Or(d.MemPolicy, outer.MemPolicy)
	d.Nice = cmp.Or(d.Nice, outer.Nice)
	d.Comm = cmp.Or(d.Comm, outer.Comm)
	d.Pcomm = cmp.Or(d.Pcomm, outer.Pcomm)
	d.UID = cmp.Or(d.UID, outer.UID)
	d.GID = cmp.Or(d.GID, outer.GID)
	d.NUMANode = cmp.Or(d.NUMANode, outer.NUMANode)
	return d
}

// inherit gives a group what it does not set itself.
func (g *Group) inherit(d Defaults) {
	own := Defaults{g.Affinity, g.Sched, g.MemPolicy, g.Nice, g.Comm, g.Pcomm, g.UID, g.GID, g.NUMANode}.over(d)
	g.Affinity, g.Sched, g.MemPolicy, g.Nice, g.Comm = own.Affinity, own.Sched, own.MemPolicy, own.Nice, own.Comm
	g.Pcomm, g.UID, g.GID, g.NUMANode = own.Pcomm, own.UID, own.GID, own.NUMANode
}

// StepNumber is the number of a step as reports have it: from 1, and 0 for what
// lives through all of them.
func (s *Spec) StepNumber(step int) int {
	if step == BackdropStep || len(s.Steps) == 0 {
		return 0
	}
	return step + 1
}

// WholeRun stands for all steps together, see Thresholds.
const WholeRun = -2

// Thresholds tells what a group is judged by in a step, or in the whole run: with
// the cgroup that it runs in, and by itself. That is, with the last ones winning:
// the spec, the backdrop's cgroups and groups; the step; its cgroups and groups;
// what the step says of that cgroup, and of that group. own is nil for a group
// that nothing is said of by itself. What a step has is judged by that step's
// thresholds in the whole run too.
func (s *Spec) Thresholds(g Placed) func(step int) (around, own *Checks) {
	far, near := s.cgroupChecks(g)
	return func(step int) (around, own *Checks) {
		if g.Step != BackdropStep && len(s.Steps) > 0 {
			step = g.Step
		}
		around, own = s.Checks.Merge(far), g.Checks
		if step < 0 || step >= len(s.Steps) {
			return around.Merge(near), own
		}
		in := &s.Steps[step]
		if around = around.Merge(in.Checks).Merge(near); g.Step == BackdropStep && own != nil {
			own = own.Merge(in.Checks)
		}
		ofCgroup, ofGroup := in.checksOf(g)
		if around = around.Merge(ofCgroup); own != nil {
			own = own.Merge(ofCgroup)
		}
		return around, own.Merge(ofGroup)
	}
}

// SpeaksOf tells whether the step has thresholds of its own for the group, or for
// the cgroup that it runs in.
func (s *Step) SpeaksOf(g Placed) bool {
	ofCgroup, ofGroup := s.checksOf(g)
	return ofCgroup != nil || ofGroup != nil
}

// checksOf is what the step says of the cgroup of a group, and of the group.
func (s *Step) checksOf(g Placed) (ofCgroup, ofGroup *Checks) {
	for _, of := range s.ChecksOf {
		switch {
		case of.Group != "" && of.Group == g.Name:
			ofGroup = ofGroup.Merge(of.Checks)
		case of.Cgroup != "" && g.Cgroup != "" && within(g.Cgroup, of.Cgroup):
			ofCgroup = ofCgroup.Merge(of.Checks)
		}
	}
	return ofCgroup, ofGroup
}

// cgroupChecks is the thresholds of the cgroups around a group, the inner ones
// winning: of those of the backdrop, and of those of the group's own part.
func (s *Spec) cgroupChecks(g Placed) (far, near *Checks) {
	if g.Cgroup == "" {
		return nil, nil
	}
	part, _, _ := strings.Cut(g.Path, "].")
	s.visit(visitor{cgroup: func(c *Cgroup, path, name string) {
		if name != g.Cgroup && !strings.HasPrefix(g.Cgroup, name+"/") {
			return
		}
		switch {
		case strings.HasPrefix(path, "backdrop."):
			far = far.Merge(c.Checks)
		case !strings.HasPrefix(path, "steps[") || strings.HasPrefix(path, part+"]."):
			near = near.Merge(c.Checks)
		}
	}})
	return far, near
}

// EachCgroup calls f for every cgroup that the spec makes.
func (s *Spec) EachCgroup(f func(*Cgroup)) {
	s.visit(visitor{cgroup: func(c *Cgroup, _, _ string) { f(c) }})
}

// EachOp calls f for every operation.
func (s *Spec) EachOp(f func(*Op)) {
	s.visit(visitor{op: func(o *Op, _ string) { f(o) }})
}

// EachProgram calls f for every program that runs beside the workers, with the path
// of its field.
func (s *Spec) EachProgram(f func(p *Program, path string)) {
	s.visit(visitor{
		program: f,
		op: func(o *Op, path string) {
			if o.RunProgram != nil {
				f(o.RunProgram, path+".run_program")
			}
		},
	})
}
