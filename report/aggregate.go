package report

import (
	"cmp"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFailureLines bounds what Judge adds about single workers.
const maxFailureLines = 20

// GroupInfo is what the spec says of one group, for Aggregate.
type GroupInfo struct {
	Name     string
	WorkType string
	Cgroup   string
	Step     int
	Workers  int // asked for
}

// Aggregate fills Groups from Workers: one per info, and one for every group that
// only Workers know of, named "gINDEX". Counters add up, saturating; latencies
// pool the buckets of all workers and have no samples. It computes the summaries
// of the workers' own latencies as well, and puts Workers in order. It may be called again.
func (r *Report) Aggregate(infos []GroupInfo) {
	// Groups of steps come as their steps end.
	slices.SortStableFunc(r.Workers, func(a, b Worker) int {
		return cmp.Or(cmp.Compare(a.GroupIndex, b.GroupIndex), cmp.Compare(a.Index, b.Index))
	})
	n := len(infos)
	for i := range r.Workers {
		n = max(n, r.Workers[i].GroupIndex+1)
	}
	r.Groups = make([]Group, n)
	cpus := make([]cpuSet, n)
	seen := make([]int, n)
	for i := range r.Groups {
		r.Groups[i] = Group{Index: i, Name: fmt.Sprintf("g%d", i)}
		if i < len(infos) {
			info := &infos[i]
			r.Groups[i] = Group{Index: i, Name: info.Name, WorkType: info.WorkType, Cgroup: info.Cgroup, Step: info.Step, Workers: info.Workers}
		}
	}
	for i := range r.Workers {
		w := &r.Workers[i]
		r.Groups[w.GroupIndex].add(w)
		seen[w.GroupIndex]++
		_ = cpus[w.GroupIndex].add(w.CPUsUsed) // what is no CPU list names no CPU; Decode has refused it already
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		g.Workers = max(g.Workers, seen[i])
		g.CPUsUsed = cpus[i].String()
		for _, l := range g.latencies() {
			if l.lat != nil {
				l.lat.Summarize()
			}
		}
	}
	r.aggregatePhases()
}

// add adds the figures of one worker.
func (g *Group) add(w *Worker) {
	if g.WorkType == "" {
		g.WorkType = w.WorkType
	}
	if w.Completed {
		g.Completed++
	}
	for _, c := range []struct {
		sum *uint64
		v   uint64
	}{
		{&g.WorkUnits, w.WorkUnits}, {&g.Iterations, w.Iterations}, {&g.Migrations, w.Migrations},
		{&g.WallNs, w.WallNs}, {&g.CPUNs, w.CPUNs}, {&g.OffCPUNs, w.OffCPUNs},
		{&g.RunDelayNs, w.Schedstat.RunDelayNs}, {&g.RunCount, w.Schedstat.RunCount},
	} {
		*c.sum = addSat(*c.sum, c.v)
	}
	if w.WallNs > 0 {
		g.IterationsPerS += float64(w.Iterations) / (float64(w.WallNs) / 1e9)
	}
	g.MaxGapNs = max(g.MaxGapNs, w.MaxGapNs)
	from := w.latencies()
	for i, to := range []**Latency{&g.WakeLatency, &g.IterationCost, &g.TimerLatency} {
		l := from[i].lat
		if l == nil || len(l.Buckets) == 0 {
			continue
		}
		l.Summarize()
		if *to == nil {
			*to = new(Latency)
		}
		(*to).Merge(l)
	}
}

func (g *Group) latencies() [3]namedLatency {
	return [3]namedLatency{
		{"wake_latency_ns", g.WakeLatency}, {"iteration_cost_ns", g.IterationCost}, {"timer_latency_ns", g.TimerLatency},
	}
}

// Judge sets Verdict: Fail if there are Failures, a worker did not complete, a
// group has fewer reports than it asked for workers or a check failed;
// Inconclusive if a check is; else Pass. It adds a line to Failures for each that
// failed, for at most 20 workers and 20 checks, and may be called again. Aggregate
// and the checks come before it.
func (r *Report) Judge() {
	lines, more := 0, 0
	for i := range r.Workers {
		w := &r.Workers[i]
		if w.Completed {
			continue
		}
		if lines++; lines > maxFailureLines {
			more++
			continue
		}
		r.fail(fmt.Sprintf("%s: %s", r.WorkerName(w), w.Ending()))
	}
	if more > 0 {
		r.fail(fmt.Sprintf("%d more workers did not complete", more))
	}
	r.judgeCounts()
	r.Verdict = r.judgeChecks()
	if len(r.Failures) > 0 {
		r.Verdict = Fail
	}
}

// fail adds a line to Failures once.
func (r *Report) fail(line string) {
	if !slices.Contains(r.Failures, line) {
		r.Failures = append(r.Failures, line)
	}
}

// judgeCounts fails groups with fewer reports than workers asked for. Where
// none reported, whatever is among the failures already is why.
func (r *Report) judgeCounts() {
	if len(r.Workers) == 0 && len(r.Failures) > 0 {
		return
	}
	have := make([]int, len(r.Groups))
	for i := range r.Workers {
		if g := r.Workers[i].GroupIndex; g < len(have) {
			have[g]++
		}
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		if have[i] < g.Workers {
			r.fail(fmt.Sprintf("group %s: %d of %d workers have no report", g.Name, g.Workers-have[i], g.Workers))
		}
	}
}

// WorkerName names a worker for people: "worker 1 of group pipes (pipe_io, tid 214)".
func (r *Report) WorkerName(w *Worker) string {
	group := fmt.Sprintf("g%d", w.GroupIndex)
	if w.GroupIndex >= 0 && w.GroupIndex < len(r.Groups) {
		group = r.Groups[w.GroupIndex].Name
	}
	return fmt.Sprintf("worker %d of group %s (%s, tid %d)", w.Index, group, w.WorkType, w.TID)
}

// Ending says for people how a worker ended: "completed", "signal 11 (SIGSEGV):
// fault at 0x8", "exited with status 3; partial figures kept".
func (w *Worker) Ending() string {
	if w.Completed {
		return "completed"
	}
	s := "did not complete"
	if e := w.ExitInfo; e != nil {
		s = e.String()
	}
	if w.Partial {
		s += "; partial figures kept"
	}
	return s
}

// String is the exit info as one line for people.
func (e *ExitInfo) String() string {
	s := e.Kind
	switch e.Kind {
	case ExitExited:
		s = fmt.Sprintf("exited with status %d", e.Code)
	case ExitSignaled:
		s = fmt.Sprintf("signal %d", e.Signal)
		if name := unix.SignalName(syscall.Signal(e.Signal)); name != "" {
			s += " (" + name + ")"
		}
	case ExitTimedOut:
		s = "did not stop in time"
	case ExitWaitFailed:
		s = "its end could not be learned"
	case ExitPanicked:
		s = "panicked"
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}
