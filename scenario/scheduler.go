package scenario

import (
	"context"
	"errors"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scx"
	"github.com/guestinit/guestinit/spec"
)

// scheduler is the guard of a spec's sched_ext scheduler.
type scheduler struct {
	opts    scx.Options
	running *scx.Scheduler
	report  report.Scheduler
}

var _ guard = (*scheduler)(nil)

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

// Stop ends the scheduler. The error says why it did not
// schedule any more.
func (g *scheduler) Stop() (err error) {
	g.report, err = g.running.Stop()
	return err
}

// Report is what is known of the scheduler.
func (g *scheduler) Report() *report.Scheduler { return &g.report }
