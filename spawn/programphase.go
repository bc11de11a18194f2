package spawn

import (
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/worker"
)

// total is what a program came to since it was started: CPU time of all its
// threads and of the children that it waited for, and what the kernel tells of its
// first thread.
type total struct {
	cpuNs, runCPUNs, runDelayNs, runCount, migrations, started uint64
	all                                                        bool // it had ended
}

// fields are the figures of a total, in one order.
func (t *total) fields() []*uint64 {
	return []*uint64{&t.cpuNs, &t.runCPUNs, &t.runDelayNs, &t.runCount, &t.migrations, &t.started}
}

// cutPrograms notes what each program has come to at the begin of a phase, as
// programs cannot look at the epoch themselves.
func (h *Handle) cutPrograms() {
	for _, p := range h.procs {
		if p.program != nil {
			p.program.cut(p.pid)
		}
	}
}

// cut notes what the program has come to.
func (r *program) cut(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts = append(r.cuts, r.soFar(pid))
}

// soFar is what the program has come to; a figure that the kernel does not tell
// is 0. The pid is the program's as long as it has not been measured at its end,
// which is before it is reaped.
func (r *program) soFar(pid int) (t total) {
	s := r.slab
	if r.ended {
		return total{all: true}
	}
	if state(s) != worker.StateRunning || atomic.LoadUint64(&s.WorkUnits) == 0 {
		return t // its baselines are still being read
	}
	t.started = 1
	cpu := processCPU(pid) + childrenCPU(pid)
	t.cpuNs = cpu - min(cpu, uint64(s.CPUNs))
	run := schedstat(pid)
	t.runCPUNs, t.runDelayNs, t.runCount = run[0]-min(run[0], s.RunCPUNs), run[1]-min(run[1], s.RunDelayNs), run[2]-min(run[2], s.RunCount)
	n := migrations(pid)
	t.migrations = n - min(n, s.Migrations)
	return t
}

// final is what a program came to that was measured. Its CPU time is there when it
// was reaped.
func (r *program) final() total {
	s := r.slab
	return total{nonNegative(s.CPUNs), s.RunCPUNs, s.RunDelayNs, s.RunCount, s.Migrations, s.WorkUnits, true}
}

// slices are those of all phases until turn, which partition what the program came
// to; none of one that could not be executed.
func (r *program) slices(shared *worker.Shared, turn uint32) (all []report.PhaseSlice) {
	s := r.slab
	if !r.ended || s.PhaseRoom == 0 {
		return nil
	}
	end, from := r.final(), total{}
	begin := s.StartNs
	for i := range turn + 1 {
		until, to := s.EndNs, end
		if i < turn && int(i) < len(r.cuts) {
			until = min(max(shared.MarkAt(i+1).AtNs, begin), s.EndNs)
			if !r.cuts[i].all {
				to = r.cuts[i]
			}
		}
		part := to
		for k, v := range part.fields() {
			*v = min(max(*v, *from.fields()[k]), *end.fields()[k]) // /proc may have told nothing, or rounded
			*to.fields()[k] = *v
			*v -= *from.fields()[k]
		}
		wall := nonNegative(until - begin)
		all = append(all, report.PhaseSlice{
			Epoch: shared.MarkAt(i).Epoch, WallNs: wall, CPUNs: part.cpuNs, OffCPUNs: nonNegative(int64(wall - part.cpuNs)),
			WorkUnits: part.started, Iterations: part.started, Migrations: part.migrations,
			Schedstat: report.Schedstat{CPUNs: part.runCPUNs, RunDelayNs: part.runDelayNs, RunCount: part.runCount},
		})
		begin, from = until, to
	}
	return all
}

// processCPU is the CPU time of a process in ns, threads that ended included.
func processCPU(pid int) uint64 {
	const perProcess = 2 // CPUCLOCK_SCHED of include/linux/posix-timers_types.h
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid)<<3|perProcess, &ts) != nil {
		return 0
	}
	return nonNegative(ts.Nano())
}

// childrenCPU is the CPU time in ns of the children that a process waited for, in
// steps of 10 ms.
func childrenCPU(pid int) uint64 {
	const tick = 1e7 // ns; USER_HZ is 100 wherever Go runs
	_, after, _ := strings.Cut(readLine(pid, "stat"), ") ")
	f := strings.Fields(after)
	if len(f) < 15 { // the state comes first, cutime and cstime are the 14th and 15th
		return 0
	}
	user, _ := strconv.ParseUint(f[13], 10, 64)
	system, _ := strconv.ParseUint(f[14], 10, 64)
	return (user + system) * tick
}

// schedstat is the CPU time in ns, the run delay in ns and the number of runs of a
// process's first thread.
func schedstat(pid int) (v [3]uint64) {
	for i, f := range strings.Fields(readLine(pid, "schedstat")) {
		if i < len(v) {
			v[i], _ = strconv.ParseUint(f, 10, 64)
		}
	}
	return v
}

// migrations is how often a process's first thread changed its CPU.
func migrations(pid int) uint64 {
	_, after, _ := strings.Cut(readLine(pid, "sched"), "nr_migrations")
	after, _, _ = strings.Cut(after, "\n")
	n, _ := strconv.ParseUint(strings.Trim(after, " :"), 10, 64)
	return n
}
