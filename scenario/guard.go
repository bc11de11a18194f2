package scenario

import (
	"context"
	"errors"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scx"
	"github.com/guestinit/guestinit/spec"
)

// guard is what a run depends on: the sched_ext scheduler that its workers run
// under. It is there before the first worker is born, and until the last one was
// collected.
type guard interface {
	// Start returns when it is in place. An error that is no *scx.Failure means
	// that nothing was tried.
	Start(ctx context.Context) error
	// Done is closed when it fails.
	Done() <-chan struct{}
	// Stop ends it. It is called once if Start returned nil. The error is why it
	// was not in place any more.
	Stop() error
	// Report is what is known of it.
	Report() *report.Scheduler
}

// errSchedulerFailed ends a run early. Why the scheduler failed is known later.
var errSchedulerFailed = errors.New("the scheduler failed")

// runGuarded runs the workload while the guard is in place. One that fails ends
// the run, with what the workers measured until then; without one that came into
// place no worker is born.
func runGuarded(ctx context.Context, g guard, s *spec.Spec, run report.Run, sink Sink) (Result, error) {
	err := g.Start(ctx)
	run.Scheduler = g.Report()
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
	res.Run.Scheduler = g.Report()
	return res, err
}
