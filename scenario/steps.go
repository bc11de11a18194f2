package scenario

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// lookInterval is how often a hold looks whether any worker is left.
const lookInterval = 500 * time.Millisecond

// setUpBackdrop sets up what lives through all steps.
func (e *engine) setUpBackdrop(b *spec.Backdrop) error {
	if err := e.setUp(b.Groups, b.Cgroups, spec.BackdropStep); err != nil {
		return err
	}
	for i := range b.Programs {
		if err := e.startJob(&b.Programs[i], spec.BackdropStep); err != nil {
			return err
		}
	}
	return e.ops(b.Ops, spec.BackdropStep)
}

// setUp makes cgroups and starts groups, in them and outside.
func (e *engine) setUp(groups []spec.Group, cgroups []spec.Cgroup, step int) error {
	for i := range cgroups {
		if err := e.addCgroup(&cgroups[i], cgroups[i].Name, step); err != nil {
			return err
		}
	}
	var crews []*crew
	if len(groups) > 0 {
		c, err := e.bear(groups, "", step)
		if err != nil {
			return err
		}
		crews = append(crews, c)
	}
	for i := range cgroups {
		more, err := e.bearIn(&cgroups[i], cgroups[i].Name, step)
		if err != nil {
			return err
		}
		crews = append(crews, more...)
	}
	e.start(crews)
	return nil
}

// addCgroup makes a cgroup and those inside of it.
func (e *engine) addCgroup(c *spec.Cgroup, name string, step int) error {
	var cpus []int
	if c.Cpuset != nil {
		var err error
		if cpus, err = e.machine.Cpuset(c.Cpuset); err != nil {
			return fmt.Errorf("cgroup %s: %w", name, err)
		}
	}
	if err := e.tree.add(c, name, step, cpus); err != nil {
		return err
	}
	for i := range c.Cgroups {
		if err := e.addCgroup(&c.Cgroups[i], name+"/"+c.Cgroups[i].Name, step); err != nil {
			return err
		}
	}
	return nil
}

// bearIn gives birth to the groups of a cgroup and of those inside of it.
func (e *engine) bearIn(c *spec.Cgroup, name string, step int) ([]*crew, error) {
	var crews []*crew
	if len(c.Groups) > 0 {
		x, err := e.bear(c.Groups, name, step)
		if err != nil {
			return nil, err
		}
		crews = append(crews, x)
	}
	for i := range c.Cgroups {
		more, err := e.bearIn(&c.Cgroups[i], name+"/"+c.Cgroups[i].Name, step)
		if err != nil {
			return nil, err
		}
		crews = append(crews, more...)
	}
	return crews, nil
}

// step plays one step and takes down what it made. The second error is one of the
// sink.
func (e *engine) step(i int, hold time.Duration) (failure, sinkErr error) {
	groups, cgroups := e.spec.Groups, e.spec.Cgroups
	var ops []spec.Op
	var loop *spec.Loop
	if len(e.spec.Steps) > 0 {
		s := &e.spec.Steps[i]
		groups, cgroups, ops = s.Groups, s.Cgroups, s.Ops
		if s.Hold != nil {
			loop = s.Hold.Loop
		}
	}
	failure = e.setUp(groups, cgroups, i)
	if failure == nil && loop == nil {
		failure = e.ops(ops, i)
	}
	if failure == nil {
		e.beginPhase(i)
		failure = e.hold(hold, loop, ops, i)
		e.endPhase(i)
	}
	sinkErr = e.collect(func(c *crew) bool { return c.step == i })
	e.endJobs(func(j *job) bool { return j.step == i })
	if err := e.tree.remove(func(c *cell) bool { return c.step == i }); err != nil {
		failure = errors.Join(failure, err)
	}
	return failure, sinkErr
}

// setPhase tells the workers of the backdrop.
func (e *engine) setPhase(epoch uint32) {
	for _, c := range e.crews {
		if c.step == spec.BackdropStep {
			c.handle.SetPhase(epoch)
		}
	}
}

// What settle waits for at most, and how often it looks. Of a worker that is kept
// from looking for longer, one pass may count for the phase before.
const (
	settleLimit = 250 * time.Millisecond
	settleLook  = time.Millisecond
)

// settle waits until the workers of the backdrop have seen that the phase is
// over: what is changed after it is not to show in their slices of it.
func (e *engine) settle() {
	tick := time.NewTicker(settleLook)
	defer tick.Stop()
	for end := time.Now().Add(settleLimit); time.Now().Before(end); <-tick.C {
		behind := func(c *crew) bool {
			return c.step == spec.BackdropStep && !e.tree.frozen(c.cgroup) && !c.handle.InPhase()
		}
		if !slices.ContainsFunc(e.crews, behind) {
			return
		}
	}
}

func (e *engine) beginPhase(i int) {
	e.playing, e.cpusets, e.allows, e.moved = true, cpuLists{}, cpuLists{}, map[string]bool{}
	e.keepCpusets()
	p := report.Phase{Name: e.spec.Name}
	if len(e.spec.Steps) > 0 {
		p.Epoch, p.Name = uint32(i+1), e.spec.Steps[i].Name
		e.setPhase(p.Epoch)
	}
	p.StartNs = int64(e.elapsed())
	e.run.Phases = append(e.run.Phases, p)
	e.event(Event{Kind: EventPhase, Step: e.spec.StepNumber(i), Name: p.Name, Epoch: p.Epoch, Text: "begins"})
}

func (e *engine) endPhase(i int) {
	if len(e.spec.Steps) > 0 {
		e.setPhase(spawn.BetweenPhases)
	}
	e.playing = false
	p := &e.run.Phases[len(e.run.Phases)-1]
	p.EndNs = int64(e.elapsed())
	e.settle()
	maps.DeleteFunc(e.allows, func(name string, _ []int) bool { return !e.moved[name] })
	p.Cpusets, p.Allowed = e.cpusets.text(), e.allows.text()
	e.event(Event{Kind: EventPhase, Step: e.spec.StepNumber(i), Name: p.Name, Epoch: p.Epoch, Text: "ends"})
}

// cpuLists is CPUs by name.
type cpuLists map[string][]int

// add adds CPUs to those of a name.
func (l cpuLists) add(name string, cpus []int) {
	all := append(slices.Clone(l[name]), cpus...)
	slices.Sort(all)
	l[name] = slices.Compact(all)
}

// text is the lists as reports have them; nil for none.
func (l cpuLists) text() map[string]string {
	if len(l) == 0 {
		return nil
	}
	lists := make(map[string]string, len(l))
	for name, cpus := range l {
		lists[name] = spec.CPUList(cpus).String()
	}
	return lists
}

// keepCpusets adds what the cpusets hold now, and where groups that were moved may
// run, to what it was in this phase.
func (e *engine) keepCpusets() {
	if !e.playing {
		return
	}
	for _, c := range e.tree.cells {
		cpus := e.tree.cpus(c.name)
		if cpus == nil {
			cpus = e.machine.Online
		}
		e.cpusets.add(c.name, cpus)
	}
	if !e.moves {
		return
	}
	for _, c := range e.crews {
		for i := range c.groups {
			cpus, moved := e.allowed(c, i)
			e.allows.add(c.groups[i].Name, cpus)
			e.moved[c.groups[i].Name] = moved || e.moved[c.groups[i].Name]
		}
	}
}

// hold waits, and does the ops of a loop meanwhile.
func (e *engine) hold(d time.Duration, loop *spec.Loop, ops []spec.Op, step int) error {
	end := time.Now().Add(d)
	if loop == nil {
		e.wait(end)
		return nil
	}
	for next := time.Now(); next.Before(end) && e.ctx.Err() == nil; {
		if err := e.ops(ops, step); err != nil {
			return err
		}
		for !next.After(time.Now()) { // a turn that takes longer than the interval costs turns
			next = next.Add(time.Duration(loop.Interval))
		}
		if !e.wait(earlier(next, end)) {
			break
		}
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// wait waits until a point in time; false if the run was told to end, or if the
// workers that were there have all ended.
func (e *engine) wait(until time.Time) bool {
	had := len(e.crews) > 0 && e.anyLives()
	t := time.NewTimer(0)
	defer t.Stop()
	<-t.C
	for {
		left := time.Until(until)
		if left <= 0 {
			return true
		}
		t.Reset(min(left, lookInterval))
		select {
		case <-e.ctx.Done():
			return false
		case <-t.C:
		}
		if had && left > lookInterval && !e.anyLives() {
			e.note("%v of a hold were left when no worker was", time.Until(until).Round(time.Millisecond))
			return false
		}
	}
}

func (e *engine) anyLives() bool {
	any := false
	for _, c := range e.crews {
		any = c.handle.Look() || any
	}
	return any
}
