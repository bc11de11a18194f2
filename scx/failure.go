package scx

import (
	"fmt"

	"github.com/guestinit/guestinit/report"
)

// The kinds of Failure.
const (
	Refused = "refused" // it was never enabled
	Exited  = "exited"  // its program ended, or took the scheduler back
	Ejected = "ejected" // the kernel ended it: an error of the scheduler, its own wish, CPU hotplug, SysRq-S
	Stalled = "stalled" // the kernel ended it because a task that could run got no CPU for too long
)

// Failure is a scheduler that did not do its work to the end.
type Failure struct {
	Kind   string
	Name   string // the scheduler's, or its program's path if it has none yet
	Reason string // in the words of the kernel or of the program
	Report report.Scheduler
}

// Error returns one line.
func (f *Failure) Error() string {
	switch f.Kind {
	case Refused:
		return fmt.Sprintf("scheduler %s was refused: %s", f.Name, f.Reason)
	case Ejected:
		return fmt.Sprintf("scheduler %s was ejected by the kernel: %s", f.Name, f.Reason)
	}
	return fmt.Sprintf("scheduler %s %s: %s", f.Name, f.Kind, f.Reason)
}
