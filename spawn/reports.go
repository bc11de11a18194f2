package spawn

import (
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// report makes the report of worker i out of its slab. Whether it is complete is
// judged by the slab alone; the exit status only explains one that is not.
func (h *Handle) report(i int) report.Worker {
	m := &h.members[i]
	s := m.slab
	reached := state(s)
	r := report.Worker{
		TID: int(s.TID), GroupIndex: m.group, Index: m.index,
		WorkType:    h.plans[m.group].work.Type.Name,
		IsMessenger: s.IsMessenger != 0,
		Completed:   reached == worker.StateCommitted,
	}
	if r.TID == 0 && m.proc >= 0 {
		r.TID = h.procs[m.proc].pid
	}
	if !r.Completed {
		r.ExitInfo = h.explain(m)
	}
	r.SoftErrors = softErrors(s)
	r.Settings = settings(&h.plans[m.group], s)
	if reached < worker.StateRunning {
		return r
	}
	r.Partial = !r.Completed
	h.addLoop(&r, m)
	addSchedule(&r, s)
	r.WakeLatency = latency(s.Wake)
	r.IterationCost = latency(s.Cost)
	r.TimerLatency = latency(s.Timer)
	if m.proc >= 0 && h.procs[m.proc].program != nil {
		h.procs[m.proc].program.outputs(&r)
		r.Phases = h.procs[m.proc].program.slices(h.arena.shared, h.arena.shared.Turn)
		return r
	}
	h.endPhases(s)
	r.Phases = phases(s)
	return r
}

// endPhases closes the slices that a worker left open which died in its loop: the
// current one with what it had counted, and those of later phases with nothing.
func (h *Handle) endPhases(s *worker.Slab) {
	turn := h.arena.shared.Turn
	if s.PhaseRoom == 0 || s.PhaseCount > turn {
		return
	}
	p := s.PhaseAt(s.PhaseCount)
	p.EndNs = max(s.EndNs, p.StartNs)
	p.WorkUnits, p.Iterations, p.Migrations = p.WorkUnits+s.WorkUnits, p.Iterations+s.Iterations, p.Migrations+s.Migrations
	p.CPUNs, p.RunCPUNs, p.RunDelayNs, p.RunCount, p.Migrated = 0, 0, 0, 0, 0 // not known
	for s.PhaseCount++; s.PhaseCount <= turn; s.PhaseCount++ {
		end := s.PhaseAt(s.PhaseCount - 1).EndNs
		p := s.PhaseAt(s.PhaseCount)
		p.Epoch, p.StartNs, p.EndNs = h.arena.shared.MarkAt(s.PhaseCount).Epoch, end, end
	}
}

// phases copies the slices of a worker's phases.
func phases(s *worker.Slab) []report.PhaseSlice {
	var slices []report.PhaseSlice
	for i := range min(s.PhaseCount, s.PhaseRoom) {
		p := s.PhaseAt(i)
		wall, cpu, pages := nonNegative(p.EndNs-p.StartNs), nonNegative(p.CPUNs), &p.NUMAPages
		if p.PeerPages != 0 {
			pages = &worker.SlabAt(s.Peers).PhaseAt(i).NUMAPages
		}
		slices = append(slices, report.PhaseSlice{
			Epoch: p.Epoch, WallNs: wall, CPUNs: cpu, OffCPUNs: nonNegative(int64(wall - cpu)),
			WorkUnits: p.WorkUnits, Iterations: p.Iterations, Migrations: p.Migrations,
			CPUsUsed: cpuList(&p.CPUsUsed).String(), MaxGapNs: nonNegative(p.MaxGapNs), MaxGapCPU: int(p.MaxGapCPU),
			Schedstat: report.Schedstat{CPUNs: p.RunCPUNs, RunDelayNs: p.RunDelayNs, RunCount: p.RunCount},
			NUMAPages: numaPages(pages), NUMAMigrated: p.Migrated,
			WakeLatency: phaseLatency(p.Wake), TimerLatency: phaseLatency(p.Timer),
		})
	}
	return slices
}

// phaseLatency is the latency of a phase with its samples, which are few.
func phaseLatency(addr uintptr) *report.Latency {
	r := latency(addr)
	if r != nil {
		all := worker.Samples(addr, worker.PhaseSamples)
		r.Samples = slices.Clone(report.Packed(all[:min(r.Count, worker.PhaseSamples)]))
	}
	return r
}

// addLoop adds what the work loop counted. A worker that died in it leaves what
// its last checkpoint saw, and a forked one the CPU time of its whole life.
func (h *Handle) addLoop(r *report.Worker, m *member) {
	s := m.slab
	r.WorkUnits, r.Iterations = s.WorkUnits, s.Iterations
	r.StartedNs = s.StartNs - h.openedNs.Load()
	r.WallNs = nonNegative(s.EndNs - s.StartNs)
	switch {
	case r.Completed, m.proc >= 0 && h.procs[m.proc].program != nil && h.procs[m.proc].program.ended:
		r.CPUNs = nonNegative(s.CPUNs)
		r.Schedstat = report.Schedstat{CPUNs: s.RunCPUNs, RunDelayNs: s.RunDelayNs, RunCount: s.RunCount}
		r.NUMAPages = numaPages(&s.NUMAPages)
		if s.PeerPages != 0 {
			r.NUMAPages = numaPages(&worker.SlabAt(s.Peers).NUMAPages)
		}
		if s.HasMigrated != 0 {
			r.NUMAMigrated = s.Migrated
		}
	case s.Mode == worker.ModeProcess:
		r.CPUNs = nonNegative(h.procs[m.proc].exit.cpuNs)
	default: // a thread tells itself, if it could
		r.CPUNs = nonNegative(max(s.Fault.CPUNs, s.ExitCPUNs))
	}
	r.OffCPUNs = nonNegative(int64(r.WallNs) - int64(r.CPUNs))
}

// addSchedule adds where the worker ran and how long it was kept waiting.
func addSchedule(r *report.Worker, s *worker.Slab) {
	r.Migrations = s.Migrations
	seen := min(s.Migrations, worker.MaxMigrations)
	if s.Program != 0 {
		seen = 0 // the kernel counts them, and says no more
	}
	for _, m := range s.MigrationList[:seen] {
		r.MigrationList = append(r.MigrationList, report.Migration{
			AtNs: nonNegative(m.AtNs - s.StartNs), From: int(m.From), To: int(m.To)})
	}
	r.CPUsUsed = cpuList(&s.CPUsUsed).String()
	r.MaxGapNs = nonNegative(s.MaxGapNs)
	r.MaxGapCPU = int(s.MaxGapCPU)
	if s.MaxGapAtNs != 0 {
		r.MaxGapAtNs = nonNegative(s.MaxGapAtNs - s.StartNs)
	}
}

func nonNegative(v int64) uint64 { return uint64(max(v, 0)) }

func cpuList(mask *worker.CPUMask) spec.CPUList {
	var cpus spec.CPUList
	for word, bits := range mask {
		for bit := 0; bits != 0; bit++ {
			if bits&1 != 0 {
				cpus = append(cpus, word*64+bit)
			}
			bits >>= 1
		}
	}
	return cpus
}

func numaPages(pages *[bare.MaxNodes]uint64) map[string]uint64 {
	var m map[string]uint64
	for node, n := range pages {
		if n != 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[strconv.Itoa(node)] = n
		}
	}
	return m
}

func softErrors(s *worker.Slab) map[string]string {
	var m map[string]string
	for step, errno := range s.SoftErrno {
		if errno != 0 {
			if m == nil {
				m = make(map[string]string)
			}
			e := unix.Errno(errno)
			m[worker.StepNames[step]] = fmt.Sprintf("%s: %s", unix.ErrnoName(e), e.Error())
		}
	}
	return m
}

// latency copies a latency record out of the slab; nil where the type promises
// none.
func latency(addr uintptr) *report.Latency {
	l := worker.LatencyAt(addr)
	if l == nil {
		return nil
	}
	r := &report.Latency{Count: l.Count, Sum: l.Sum, Max: l.Max}
	if l.Count > 0 {
		r.Min = l.Min
	}
	for i, n := range l.Buckets {
		if n != 0 {
			lo, width := bare.BucketRange(i)
			r.Buckets = append(r.Buckets, report.Bucket{Lo: lo, Width: width, Count: n})
		}
	}
	r.Summarize()
	return r
}

// AttachSamples puts the reservoirs of worker i into its report. They are the
// worker's memory itself, up to 400 KB a population, and there until Close: copy
// what is to last longer.
func (h *Handle) AttachSamples(i int, r *report.Worker) {
	h.alive.RLock()
	defer h.alive.RUnlock()
	if h.closed.Load() {
		return
	}
	s := h.members[i].slab
	attach := func(addr uintptr, l *report.Latency) {
		if l != nil {
			all := worker.Samples(addr, s.Reservoir)
			l.Samples = report.Packed(all[:min(l.Count, uint64(len(all)))])
		}
	}
	attach(s.Wake, r.WakeLatency)
	attach(s.Cost, r.IterationCost)
	attach(s.Timer, r.TimerLatency)
}
