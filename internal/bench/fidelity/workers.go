package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// run has a group work for the time of a round, and returns its reports with all
// their samples.
func (b *bench) run(g spec.Group) ([]report.Worker, error) { return b.runFor(b.span, g) }

func (b *bench) runFor(span time.Duration, g spec.Group) (reports []report.Worker, err error) {
	h, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{g}, Samples: worker.ReservoirCap})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := h.Close(); err == nil {
			err = closeErr
		}
	}()
	if reports, err = h.Run(context.Background(), span); err != nil {
		return nil, err
	}
	for i := range reports {
		r := &reports[i]
		if !r.Completed || r.WallNs == 0 {
			return nil, fmt.Errorf("worker %d of %s: %+v", r.Index, r.WorkType, r.ExitInfo)
		}
		if len(r.SoftErrors) > 0 {
			return nil, fmt.Errorf("%w: worker %d of %s: %v", errNotHere, r.Index, r.WorkType, r.SoftErrors)
		}
		h.AttachSamples(i, r)
		for _, l := range []*report.Latency{r.WakeLatency, r.IterationCost, r.TimerLatency} {
			if l != nil {
				l.Samples = slices.Clone(l.Samples) // the handle's memory goes with it
			}
		}
	}
	return reports, nil
}

// group is workers of a type; pinned puts them all on the CPU of the bench.
func (b *bench) group(pinned bool, workers int, name string, params map[string]any) spec.Group {
	g := spec.Group{Workers: workers, Work: spec.Work{Type: name, Params: params}}
	if pinned {
		g.Affinity = &spec.Affinity{Exact: spec.CPUList{b.cpu}}
	}
	return g
}

// passes are the passes per second of the first worker of a group: the round trips
// of a pair, seen from one of its ends.
func (b *bench) passes(g spec.Group) ([]float64, error) {
	reports, err := b.run(g)
	if err != nil {
		return nil, err
	}
	return []float64{perSecond(reports[0].Iterations, reports[0].WallNs)}, nil
}

func perSecond(n, ns uint64) float64 { return float64(n) / float64(ns) * 1e9 }

// timers are the latencies of timer_latency in one turn, in ns.
func (b *bench) timers(sched *spec.Sched) ([]float64, error) {
	g := b.group(true, 1, "timer_latency", map[string]any{"interval": timerInterval.String(), "skip_missed": true})
	g.Sched = sched
	reports, err := b.runFor(b.span/turns, g)
	if err != nil {
		return nil, err
	}
	var ns []float64
	for _, v := range reports[0].TimerLatency.Samples {
		ns = append(ns, float64(v.Ns()))
	}
	return ns, nil
}

// faults are the page faults per second of page_fault_churn, as the kernel counts
// them for the worker's process, with the hundred or so of its birth.
func (b *bench) faults() ([]float64, error) {
	before, err := childFaults()
	if err != nil {
		return nil, err
	}
	reports, err := b.run(b.group(true, 1, "page_fault_churn", map[string]any{"spin_iters": uint64(0)}))
	if err != nil {
		return nil, err
	}
	after, err := childFaults()
	return []float64{perSecond(uint64(after-before), reports[0].WallNs)}, err
}

// childFaults are the minor faults of all children that were reaped.
func childFaults() (int64, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u)
	return u.Minflt, err
}
