package spawn

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// Clone modes of a workload.
const (
	Fork   = "fork"
	Thread = "thread"

	// Container is the mode of a group with pcomm; a workload cannot ask for it.
	Container = "container"
)

// maxPhases bounds the phases of one workload, the times between them included.
const maxPhases = 1024

// maxWorkers bounds the workers of one workload.
const maxWorkers = 100_000

// Workload is what Spawn runs: groups of workers side by side, all born the
// same way.
type Workload struct {
	CloneMode string       // Fork or Thread; empty means Fork
	Groups    []spec.Group // group 0 first; reports keep this order
	Samples   int          // values kept per latency population of a worker, 0 to worker.ReservoirCap
	Phases    int          // phases that SetPhase will tell of, 0 to maxPhases; each worker keeps a slice of each
	Cgroups   []string     // cgroup v2 directories that the groups' processes are born in, by group; "" or absent: the spawner's own
}

// groupPlan is a group of a workload that was admitted, with everything that
// its workers need resolved.
type groupPlan struct {
	group  *spec.Group
	work   *worker.Instance
	setup  worker.Setup
	random *spec.RandomSubset // drawn anew for each worker; nil if not asked for
	cgroup string             // directory that its processes are born in; "": the spawner's own
}

// Validate checks the whole workload and makes nothing. The error names each
// field that is wrong, its value and the remedy.
func (w *Workload) Validate() error {
	_, err := w.admit()
	return err
}

// admit checks the workload and resolves its groups.
func (w *Workload) admit() ([]groupPlan, error) {
	switch w.CloneMode {
	case "", Fork:
	case Thread:
		if slices.ContainsFunc(w.Cgroups, func(dir string) bool { return dir != "" }) {
			return nil, errors.New("cgroups: a thread cannot be born in a cgroup of its own, it would move the spawner; use clone_mode fork")
		}
	default:
		return nil, fmt.Errorf("clone_mode: unknown mode %q, use %q or %q", w.CloneMode, Fork, Thread)
	}
	if w.Samples < 0 || w.Samples > worker.ReservoirCap {
		return nil, fmt.Errorf("samples: %d is out of range, use 0 to %d", w.Samples, worker.ReservoirCap)
	}
	if w.Phases < 0 || w.Phases > maxPhases {
		return nil, fmt.Errorf("phases: %d is out of range, use 0 to %d", w.Phases, maxPhases)
	}
	var errs []error
	plans := make([]groupPlan, len(w.Groups))
	total := 0
	for i := range w.Groups {
		g := &w.Groups[i]
		total += max(g.Workers, 0)
		if i < len(w.Cgroups) {
			plans[i].cgroup = w.Cgroups[i]
		}
		if err := plans[i].admit(g, w.CloneMode); err != nil {
			errs = append(errs, spec.At(fmt.Sprintf("groups[%d]", i), err))
		}
	}
	if total > maxWorkers {
		errs = append(errs, fmt.Errorf("groups: %d workers in all, the limit is %d", total, maxWorkers))
	}
	return plans, errors.Join(errs...)
}

func (p *groupPlan) admit(g *spec.Group, mode string) error {
	p.group = g
	if g.Pcomm != "" {
		if mode == Thread {
			return spec.At("pcomm", fmt.Errorf("%q: a container is a process, and clone_mode is thread; use fork", g.Pcomm))
		}
		if err := checkName("pcomm", g.Pcomm); err != nil {
			return err
		}
		mode = Container
	}
	work, err := worker.Parse(g.Work)
	if err != nil {
		return spec.At("work", err)
	}
	if err := refused(work.Type, mode); err != nil {
		return spec.At("work.type", err)
	}
	p.work = work
	size := work.GroupSize()
	var errs []error
	if size > 1 && (g.Workers <= 0 || g.Workers%size != 0) {
		errs = append(errs, spec.At("workers", fmt.Errorf("%d is no multiple of %d, the group size of %s; use %d",
			g.Workers, size, work.Type.Name, max((g.Workers+size-1)/size, 1)*size)))
	}
	if err := checkProgram(p, g.Workers); err != nil {
		errs = append(errs, err)
	}
	if g.Workers < 0 {
		errs = append(errs, spec.At("workers", fmt.Errorf("%d is negative", g.Workers)))
	}
	return errors.Join(append(errs, p.resolve(g))...)
}

// resolve fills the set-up that all workers of the group make.
func (p *groupPlan) resolve(g *spec.Group) error {
	u := &p.setup
	step := func(n uint32) { u.Steps |= 1 << n }
	var errs []error
	check := func(n uint32, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		step(n)
	}
	if a := g.Affinity; a != nil {
		p.random = a.RandomSubset
		check(worker.StepAffinity, resolveAffinity(u, a))
	}
	if s := g.Sched; s != nil && s.Policy != "normal" && s.Policy != "" {
		check(worker.StepSched, resolveSched(u, s))
	}
	if m := g.MemPolicy; m != nil && m.Mode != "default" && m.Mode != "" {
		check(worker.StepMemPolicy, resolveMemPolicy(u, m))
	}
	if g.Nice != nil {
		u.Nice = int32(*g.Nice)
		check(worker.StepNice, inRange("nice", *g.Nice, -20, 19))
	}
	if g.Comm != "" {
		copy(u.Comm[:], g.Comm)
		check(worker.StepComm, checkName("comm", g.Comm))
	}
	if g.GID != nil {
		u.GID = *g.GID
		step(worker.StepGID)
	}
	if g.UID != nil {
		u.UID = *g.UID
		step(worker.StepUID)
	}
	if g.NUMANode != nil {
		// Which CPUs it has is looked up by Spawn: the check may run elsewhere.
		check(worker.StepNUMANode, inRange("numa_node", *g.NUMANode, 0, bare.MaxNodes-1))
	}
	return errors.Join(errs...)
}

func inRange(field string, v, lo, hi int) error {
	if v < lo || v > hi {
		return spec.At(field, fmt.Errorf("%d is out of range, use %d to %d", v, lo, hi))
	}
	return nil
}

// checkName checks a name that PR_SET_NAME is to set.
func checkName(field, name string) error {
	if len(name) > 15 || strings.IndexByte(name, 0) >= 0 {
		return spec.At(field, fmt.Errorf("%q must be 1 to 15 bytes without NUL", name))
	}
	return nil
}
