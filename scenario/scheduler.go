package scenario

import (
	"context"
	"errors"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scx"
	"github.com/guestinit/guestinit/spec"
)

// scheduler is the Guard of a spec's sched_ext scheduler.
type scheduler struct {
	opts    scx.Options
	running *scx.Scheduler
	report  report.Scheduler
}

var _ Guard = (*scheduler)(nil)

func newScheduler(s *spec.Scheduler) *scheduler {
	return &scheduler{opts: scx.Options{Path: s.Path, Args: s.Args}}
}

// Start returns when the kernel has enabled the scheduler. An error that is no
// *scx.Failure means that nothing was tried.
func (g *scheduler) Start(ctx context.Context) (err error) {
	g.running, err = scx.Start(ctx, g.opts)
	var f *scx.Failure
	switch {
	case err == nil:
		g.report = g.running.Report()
	case errors.As(err, &f):
		g.report = f.Report
	}
	return err
}

// Done is closed when the scheduler fails.
func (g *scheduler) Done() <-chan struct{} { return g.running.Failed() }

// Check says why the scheduler does not schedule any more.
func (g *scheduler) Check() error { return g.running.Check() }

// Stop ends the scheduler. The error is what Check says.
func (g *scheduler) Stop() (err error) {
	g.report, err = g.running.Stop()
	return err
}

// errSchedulerFailed ends a run early. Why the scheduler failed is known later.
var errSchedulerFailed = errors.New("the scheduler failed")

// runScheduled runs the workload under the spec's scheduler. One that fails ends
// the run, with what the workers measured until then; without one that was
// enabled no worker is born.
func runScheduled(ctx context.Context, s *spec.Spec, run report.Run, sink Sink) (Result, error) {
	g := newScheduler(s.Scheduler)
	err := g.Start(ctx)
	run.Scheduler = &g.report
	var f *scx.Failure
	if errors.As(err, &f) {
		if sink.Begin != nil {
			err = sink.Begin(run)
		} else {
			err = nil
		}
		return Result{Run: run, Failures: []string{f.Error()}}, err
	}
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-g.Done():
			cancel(errSchedulerFailed)
		case <-ctx.Done():
		}
	}()
	res, err := runWorkload(ctx, s, run, sink)
	if stopErr := g.Stop(); stopErr != nil {
		res.Failures = append([]string{stopErr.Error()}, res.Failures...)
		if err != nil {
			err = errors.Join(stopErr, err)
		}
	}
	res.Run.Scheduler = &g.report
	return res, err
}
