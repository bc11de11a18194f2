package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// crew is the groups of one cgroup, or of none, that were born together.
type crew struct {
	handle *spawn.Handle
	groups []spec.Group  // as they were born
	index  []int         // of each in the report
	born   string        // the cgroup
	cgroup string        // where they are now
	cpus   map[int][]int // by group: what an op gave it for its affinity
	step   int
	met    bool // by an op, at work; see awaitWork
}

// bear gives birth to groups in a cgroup. They wait at their gate.
func (e *engine) bear(groups []spec.Group, cgroup string, step int) (*crew, error) {
	if e.tree.frozen(cgroup) {
		return nil, fmt.Errorf("start groups in cgroup %s: it is frozen; thaw it before", cgroup)
	}
	c := &crew{born: cgroup, cgroup: cgroup, cpus: map[int][]int{}, step: step}
	for i := range groups {
		g, err := e.resolve(&groups[i], cgroup)
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", groups[i].Name, err)
		}
		c.groups = append(c.groups, g)
		c.index = append(c.index, e.index[&groups[i]])
	}
	w := workload(e.spec, c.groups, e.sink.Samples)
	if step == spec.BackdropStep {
		w.Phases = 2 * len(e.spec.Steps)
	}
	if cgroup != "" {
		w.Cgroups = slices.Repeat([]string{e.tree.dir(cgroup)}, len(groups))
	}
	var err error
	if c.handle, err = spawn.Spawn(w); err != nil {
		if cgroup != "" {
			return nil, fmt.Errorf("start groups in cgroup %s: %w", cgroup, err)
		}
		return nil, fmt.Errorf("start groups: %w", err)
	}
	e.run.Spawner = c.handle.Spawner()
	e.mu.Lock()
	e.crews = append(e.crews, c)
	e.mu.Unlock()
	return c, nil
}

// start opens the gates of crews, one right after the other.
func (e *engine) start(crews []*crew) {
	for _, c := range crews {
		if e.opened.IsZero() {
			e.opened = time.Now()
		}
		c.handle.Start()
	}
}

// awaitWork waits until workers that were started work, for settleLimit at most
// and once for each crew: what an op does is to meet them there, not in their
// set-up, where they read back what they are and begin to measure.
func (e *engine) awaitWork() {
	end := time.Now().Add(settleLimit)
	for _, c := range e.crews {
		if !c.met {
			c.met = true
			c.handle.AwaitWork(time.Until(end))
		}
	}
}

// resolve is a group with its affinity and its number of workers by the topology
// and the cpuset that it is in.
func (e *engine) resolve(from *spec.Group, cgroup string) (spec.Group, error) {
	g := *from
	cpus := e.tree.cpus(cgroup)
	confined := cpus != nil
	if !confined {
		var err error
		if cpus, err = allowedCPUs(e.machine); err != nil {
			return g, err
		}
	}
	if g.Affinity != nil && (confined || g.Affinity.Intent != "") {
		var err error
		if g.Affinity, err = e.machine.Affinity(g.Affinity, cpus); err != nil {
			return g, err
		}
	}
	if g.WorkersPct != 0 {
		size := groupSize(&g)
		n := (len(cpus)*int(g.WorkersPct) + 9999) / 10_000
		g.Workers, g.WorkersPct = (n+size-1)/size*size, 0
	}
	return g, nil
}

// addProgress adds how far the crew has come.
func (c *crew) addProgress(all []Progress) {
	counts, alive := c.handle.SnapshotIterations(), c.handle.Alive()
	i := 0
	for g := range c.groups {
		to := &all[c.index[g]]
		for range c.groups[g].Workers {
			to.Iterations += counts[i]
			if alive[i] {
				to.Alive++
			}
			i++
		}
	}
}

// collect stops crews side by side, hands out their reports and closes them. The
// error is one of the sink.
func (e *engine) collect(pick func(*crew) bool) error {
	var picked []*crew
	for _, c := range e.crews {
		if pick(c) {
			picked = append(picked, c)
			if c.cgroup != "" {
				if err := e.tree.thaw(c.cgroup); err != nil {
					e.note("%v", err)
				}
				defer e.tree.loosen(c.cgroup)()
			}
		}
	}
	reports := make([][]report.Worker, len(picked))
	failures := make([]error, len(picked))
	var all sync.WaitGroup
	for i, c := range picked {
		all.Go(func() { reports[i], failures[i] = c.handle.StopAndCollect() })
	}
	all.Wait()
	var sinkErr error
	for i, c := range picked {
		if failures[i] != nil {
			e.fail("collect: %v", failures[i])
		}
		if sinkErr == nil {
			sinkErr = e.deliver(c, reports[i])
		}
		e.dismiss(c)
	}
	return sinkErr
}

// deliver hands out the reports of a crew.
func (e *engine) deliver(c *crew, workers []report.Worker) error {
	t := c.handle.Timing()
	e.run.StartSkewNs = max(e.run.StartSkewNs, int64(t.StartSkew))
	e.run.CollectMs = max(e.run.CollectMs, ms(t.Collect))
	e.run.Spawner = min(e.run.Spawner, c.handle.Spawner()) // deadline before fifo before nice, as it happens
	e.res.Notes = append(append(e.res.Notes, c.handle.Notes()...), notes(c.groups, workers)...)
	e.res.Workers += len(workers)
	return deliver(c.handle, workers, c.index, e.sink)
}

// dismiss closes a crew and keeps what the watcher wants to know of it.
func (e *engine) dismiss(c *crew) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c.addProgress(e.past)
	for _, i := range c.index {
		e.past[i].Alive = 0
	}
	e.crews = slices.DeleteFunc(e.crews, func(x *crew) bool { return x == c })
	if err := c.handle.Close(); err != nil {
		e.note("cleaning up: %v", err)
	}
}

// setAffinity moves the workers of a group that runs.
func (e *engine) setAffinity(name string, a *spec.Affinity) error {
	c, group, at := e.findGroup(name)
	if c == nil {
		return fmt.Errorf("no group %s runs", name)
	}
	cpus := e.tree.cpus(c.cgroup)
	if cpus == nil {
		cpus = e.machine.Online
	}
	if a == nil {
		a = &spec.Affinity{Exact: cpus}
	}
	a, err := e.machine.Affinity(a, cpus)
	if err != nil {
		return err
	}
	c.cpus[group] = a.Exact
	if a.RandomSubset != nil {
		c.cpus[group] = a.RandomSubset.From
	}
	var errs []error
	for i := range c.groups[group].Workers {
		set := a.Exact
		if r := a.RandomSubset; r != nil {
			set = draw(r)
		}
		if err := c.handle.SetAffinity(at+i, set); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// allowed is the CPUs that a group may use now, and whether an op moved it.
func (e *engine) allowed(c *crew, group int) (cpus []int, moved bool) {
	within := e.tree.cpus(c.cgroup)
	if within == nil {
		within = e.machine.Online
	}
	own, moved := c.cpus[group]
	if a := c.groups[group].Affinity; !moved && a != nil {
		if own = a.Exact; a.RandomSubset != nil {
			own = a.RandomSubset.From
		}
	}
	both := intersect(own, within)
	if len(both) == 0 { // then the kernel goes by the cpuset
		both = within
	}
	return both, moved || c.cgroup != c.born
}

// findGroup is the crew of a group that runs, its index there, and the first of its
// workers.
func (e *engine) findGroup(name string) (c *crew, group, at int) {
	for _, c := range slices.Backward(e.crews) { // those of the step come last
		at := 0
		for i := range c.groups {
			if c.groups[i].Name == name {
				return c, i, at
			}
			at += c.groups[i].Workers
		}
	}
	return nil, 0, 0
}

// draw picks CPUs at random.
func draw(r *spec.RandomSubset) spec.CPUList {
	set := slices.Clone(r.From)
	rand.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
	set = set[:min(r.Count, len(set))]
	slices.Sort(set)
	return set
}

// inside tells whether a crew or a job of a cgroup is in another one.
func inside(cgroup, outer string) bool {
	return cgroup != "" && (cgroup == outer || strings.HasPrefix(cgroup, outer+"/"))
}
