package scenario

import "context"

// Guard is something that the run depends on, such as a sched_ext scheduler. It
// is started before the first worker is born and stopped after the last one was
// collected; a failure ends the run, whose result then has ClassScheduler.
type Guard interface {
	// Start returns when it is in place.
	Start(ctx context.Context) error
	// Done is closed when it fails, so that the run ends at once. It may be nil.
	Done() <-chan struct{}
	// Check says why it is not in place any more; nil as long as it is. It is
	// asked between steps, when Done is closed, and at the end.
	Check() error
	// Stop ends it. It is called once if Start returned nil.
	Stop() error
}

// ClassScheduler is the class of failure of a run whose guard failed.
const ClassScheduler = "scheduler"
