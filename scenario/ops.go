package scenario

import (
	"errors"
	"fmt"

	"github.com/guestinit/guestinit/spec"
)

// ops does operations in order, until one fails or the run ends.
func (e *engine) ops(ops []spec.Op, step int) error {
	for i := range ops {
		if e.ctx.Err() != nil {
			return nil
		}
		e.awaitWork()
		if err := e.op(&ops[i], step); err != nil {
			return fmt.Errorf("ops[%d].%s: %w", i, ops[i].Kind(), err)
		}
		e.keepCpusets()
		e.event(Event{Kind: EventOp, Step: e.spec.StepNumber(step), Name: ops[i].Kind()})
	}
	return nil
}

func (e *engine) op(o *spec.Op, step int) error {
	switch {
	case o.AddCgroup != nil:
		return e.opAdd(o.AddCgroup, step)
	case o.RemoveCgroup != "":
		return e.opRemove(o.RemoveCgroup)
	case o.StopCgroup != "":
		return e.collect(func(c *crew) bool { return inside(c.cgroup, o.StopCgroup) })
	case o.Spawn != nil:
		c, err := e.bear(o.Spawn.Groups, o.Spawn.Cgroup, step)
		if err == nil {
			e.start([]*crew{c})
		}
		return err
	case o.SetAffinity != nil:
		return e.setAffinity(o.SetAffinity.Group, o.SetAffinity.Affinity)
	case o.RunProgram != nil:
		return e.startJob(o.RunProgram, step)
	case o.WaitProgram != nil:
		return e.waitJob(o.WaitProgram)
	case o.KillProgram != "":
		return e.killJob(o.KillProgram)
	}
	return e.opOnCell(o)
}

// opOnCell does what concerns a cgroup alone.
func (e *engine) opOnCell(o *spec.Op) error {
	var err error
	cell := func(name string) *cell {
		c := e.tree.find(name)
		if c == nil && err == nil {
			err = fmt.Errorf("no cgroup %s is there", name)
		}
		return c
	}
	switch {
	case o.Freeze != "":
		if c := cell(o.Freeze); c != nil {
			err = e.tree.freeze(c, true)
		}
	case o.Thaw != "":
		if c := cell(o.Thaw); c != nil {
			err = e.tree.freeze(c, false)
		}
	case o.SetCpuset != nil:
		if c := cell(o.SetCpuset.Cgroup); c != nil {
			var cpus []int
			if cpus, err = e.machine.Cpuset(o.SetCpuset.Cpuset); err == nil {
				err = e.tree.setCPUs(c, cpus)
			}
		}
	case o.ClearCpuset != "":
		if c := cell(o.ClearCpuset); c != nil {
			err = e.tree.setCPUs(c, nil)
		}
	case len(o.SwapCpusets) == 2:
		if a, b := cell(o.SwapCpusets[0]), cell(o.SwapCpusets[1]); err == nil {
			ofA, ofB := a.cpus, b.cpus
			err = errors.Join(e.tree.setCPUs(a, ofB), e.tree.setCPUs(b, ofA))
		}
	case o.MoveTasks != nil:
		if from, to := cell(o.MoveTasks.From), cell(o.MoveTasks.To); err == nil {
			err = e.move(from, to)
		}
	}
	return err
}

// opAdd makes a cgroup and starts the groups in it.
func (e *engine) opAdd(c *spec.Cgroup, step int) error {
	if err := e.addCgroup(c, c.Name, step); err != nil {
		return err
	}
	crews, err := e.bearIn(c, c.Name, step)
	if err == nil {
		e.start(crews)
	}
	return err
}

// opRemove collects what runs in a cgroup and removes it.
func (e *engine) opRemove(name string) error {
	err := e.collect(func(c *crew) bool { return inside(c.cgroup, name) })
	e.endJobs(func(j *job) bool { return inside(j.cgroup, name) })
	return errors.Join(err, e.tree.remove(func(c *cell) bool { return within(c.name, name) }))
}

// move moves the tasks of a cgroup, and with them the crews and jobs.
func (e *engine) move(from, to *cell) error {
	if err := e.tree.move(from, to); err != nil {
		return err
	}
	for _, c := range e.crews {
		if c.cgroup == from.name {
			c.cgroup = to.name
		}
	}
	for _, j := range e.jobs {
		if j.cgroup == from.name {
			j.cgroup = to.name
		}
	}
	return nil
}
