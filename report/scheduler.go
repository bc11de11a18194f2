package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Scheduler is what is known of the sched_ext scheduler that ran beside the
// workload.
type Scheduler struct {
	Name       string            `json:"name,omitempty"` // as the kernel has it; empty if it was never enabled
	Path       string            `json:"path"`
	Args       []string          `json:"args,omitempty"`
	State      string            `json:"state"`                // of sched_ext when the workload had ended: enabled, disabling, disabled
	Failure    string            `json:"failure,omitempty"`    // refused, exited, ejected, stalled; empty if it worked to the end
	Reason     string            `json:"reason,omitempty"`     // of the failure, in the words of the kernel or of the program
	Exit       string            `json:"exit"`                 // how its program ended
	EnableMs   float64           `json:"enable_ms"`            // from the program's start until the kernel had enabled the scheduler
	RanMs      float64           `json:"ran_ms"`               // from then until the workload had ended
	SwitchAll  bool              `json:"switch_all"`           // it schedules all normal tasks, not only those of sched: ext
	NrRejected uint64            `json:"nr_rejected"`          // tasks that it refused to schedule
	Events     map[string]uint64 `json:"events,omitempty"`     // the kernel's SCX_EV_ counters
	KernelLog  []string          `json:"kernel_log,omitempty"` // what the kernel logged of it, at most 60 lines
	Output     string            `json:"output,omitempty"`     // of the program: the first 8 and the last 48 KiB
}

// checkScheduler checks what the guest says of its scheduler.
func (d *decoder) checkScheduler(s *Scheduler) error {
	if s == nil {
		return nil
	}
	if s.EnableMs < 0 || s.RanMs < 0 {
		return fmt.Errorf("%w: run.scheduler has a negative figure", ErrCorrupt)
	}
	if err := d.checkText("run.scheduler", &s.Name, &s.Path, &s.State, &s.Failure, &s.Reason, &s.Exit, &s.Output); err != nil {
		return err
	}
	if err := d.checkTexts("run.scheduler.args", s.Args); err != nil {
		return err
	}
	if err := d.checkTexts("run.scheduler.kernel_log", s.KernelLog); err != nil {
		return err
	}
	return checkKeys(d, "run.scheduler.events", s.Events)
}

// scheduler says which scheduler ran, and how far.
func scheduler(s *Scheduler) string {
	if s == nil {
		return ""
	}
	tasks := "tasks of sched: ext"
	if s.SwitchAll {
		tasks = "all normal tasks"
	}
	return listed("sched_ext "+cmp.Or(s.Name, s.Path),
		known(s.Name == "", "never enabled"),
		known(s.Name != "", "%s, enabled in %s, ran %s", tasks, formatNs(s.EnableMs*1e6), formatNs(s.RanMs*1e6)),
		s.Failure)
}

// maxOutputLines is how much of a failed scheduler's output the table shows. Its
// end tells why; the kernel's dump above it is for JSON.
const maxOutputLines = 10

// schedulerFailure shows what the kernel and the program said of a scheduler that
// failed.
func (t *table) schedulerFailure() {
	s := t.r.Run.Scheduler
	if s == nil || s.Failure == "" {
		return
	}
	t.list("KERNEL LOG OF THE SCHEDULER", s.KernelLog)
	var lines []string
	for line := range strings.Lines(s.Output) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimRight(line, "\r\n"))
		}
	}
	if over := len(lines) - maxOutputLines; over > 0 {
		lines = slices.Insert(lines[over:], 0, fmt.Sprintf("(%d lines before are in the JSON report)", over))
	}
	t.list("OUTPUT OF THE SCHEDULER", lines)
}
