package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// PhaseGroups is what the groups did in one phase, pooled from the workers'
// slices of it, and of the groups of a step from all that they did.
type PhaseGroups struct {
	Epoch  uint32  `json:"epoch"` // as in PhaseSlice
	Name   string  `json:"name"`
	Groups []Group `json:"groups"` // those that worked in it
}

// EpochBetween is the epoch between steps.
const EpochBetween = math.MaxUint32

// Slice is the figures of the whole of a worker's loop in the form of a phase.
func (w *Worker) Slice() PhaseSlice {
	return PhaseSlice{
		WallNs: w.WallNs, CPUNs: w.CPUNs, OffCPUNs: w.OffCPUNs, WorkUnits: w.WorkUnits, Iterations: w.Iterations,
		Migrations: w.Migrations, CPUsUsed: w.CPUsUsed, MaxGapNs: w.MaxGapNs, MaxGapCPU: w.MaxGapCPU, Schedstat: w.Schedstat,
		NUMAPages: w.NUMAPages, NUMAMigrated: w.NUMAMigrated, WakeLatency: w.WakeLatency, TimerLatency: w.TimerLatency,
	}
}

// PhaseName is the name of a phase: the run's own, or "step 1" for epoch 1.
func (r *Report) PhaseName(epoch uint32) string {
	for i := range r.Run.Phases {
		if p := &r.Run.Phases[i]; p.Epoch == epoch && p.Name != "" {
			return p.Name
		}
	}
	switch epoch {
	case 0:
		return "before step 1"
	case EpochBetween:
		return "between steps"
	}
	return fmt.Sprintf("step %d", epoch)
}

// aggregatePhases fills Phases and Cgroups. It needs Groups.
func (r *Report) aggregatePhases() {
	r.Phases = nil
	pools := map[uint32]map[int]*pool{}
	add := func(w *Worker, s *PhaseSlice) {
		if s.Epoch == 0 || s.Epoch == EpochBetween {
			return
		}
		of := pools[s.Epoch]
		if of == nil {
			of = map[int]*pool{}
			pools[s.Epoch] = of
		}
		p := of[w.GroupIndex]
		if p == nil {
			p = newPool(r.Groups[w.GroupIndex])
			of[w.GroupIndex] = p
		}
		p.addSlice(w, s)
	}
	for i := range r.Workers {
		w := &r.Workers[i]
		for j := range w.Phases {
			add(w, &w.Phases[j])
		}
		if step := r.Groups[w.GroupIndex].Step; step > 0 && len(w.Phases) == 0 {
			whole := w.Slice()
			whole.Epoch = uint32(step)
			add(w, &whole)
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(pools)) {
		phase := PhaseGroups{Epoch: epoch, Name: r.PhaseName(epoch)}
		for _, i := range slices.Sorted(maps.Keys(pools[epoch])) {
			phase.Groups = append(phase.Groups, pools[epoch][i].finish())
		}
		r.Phases = append(r.Phases, phase)
	}
	r.aggregateCgroups()
}

// aggregateCgroups pools the groups of each cgroup. Without cgroups there is
// nothing to pool.
func (r *Report) aggregateCgroups() {
	r.Cgroups = nil
	var order []string
	pools := map[string]*pool{}
	for i := range r.Workers {
		w := &r.Workers[i]
		name := r.Groups[w.GroupIndex].Cgroup
		if name == "" {
			continue
		}
		p := pools[name]
		if p == nil {
			p = newPool(Group{Index: len(order), Name: name, Cgroup: name, WorkType: r.Groups[w.GroupIndex].WorkType})
			pools[name] = p
			order = append(order, name)
		}
		if p.g.WorkType != w.WorkType {
			p.g.WorkType = "several"
		}
		p.workers++
		p.g.add(w)
		_ = p.cpus.add(w.CPUsUsed)
	}
	for _, name := range order {
		r.Cgroups = append(r.Cgroups, pools[name].finish())
	}
}

// pool is a Group in the making.
type pool struct {
	g       Group
	cpus    cpuSet
	workers int
}

// newPool starts from who a group is, without its figures.
func newPool(g Group) *pool {
	return &pool{g: Group{Index: g.Index, Name: g.Name, WorkType: g.WorkType, Cgroup: g.Cgroup, Step: g.Step}}
}

// addSlice adds what a worker did in a phase.
func (p *pool) addSlice(w *Worker, s *PhaseSlice) {
	p.workers++
	p.g.add(&Worker{
		WorkType: w.WorkType, Completed: w.Completed, WallNs: s.WallNs, CPUNs: s.CPUNs, OffCPUNs: s.OffCPUNs,
		WorkUnits: s.WorkUnits, Iterations: s.Iterations, Migrations: s.Migrations, MaxGapNs: s.MaxGapNs,
		Schedstat: s.Schedstat, WakeLatency: s.WakeLatency, TimerLatency: s.TimerLatency,
	})
	_ = p.cpus.add(s.CPUsUsed)
}

func (p *pool) finish() Group {
	p.g.Workers, p.g.CPUsUsed = p.workers, p.cpus.String()
	for _, l := range p.g.latencies() {
		if l.lat != nil {
			l.lat.Summarize()
		}
	}
	return p.g
}
