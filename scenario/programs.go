package scenario

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/program"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// Bounds of programs beside the workload.
const (
	outputHead = 40 << 10 // bytes of output that are kept
	outputTail = 16 << 10
	termGrace  = time.Second // from SIGTERM to SIGKILL

	// maxJobs bounds the programs of a report; a loop may start any number.
	maxJobs = 256
)

// job is a program that was started.
type job struct {
	program *program.Program
	spec    *spec.Program
	cgroup  string
	step    int
	began   time.Duration
}

// startJob starts a program.
func (e *engine) startJob(p *spec.Program, step int) error {
	o := program.Options{Path: p.Path, Args: p.Args, Env: p.Env, Head: outputHead, Tail: outputTail}
	if p.Cgroup != "" {
		if e.tree.frozen(p.Cgroup) {
			return fmt.Errorf("start %s in cgroup %s: it is frozen; thaw it before", p.Path, p.Cgroup)
		}
		dir, err := os.Open(e.tree.dir(p.Cgroup))
		if err != nil {
			return fmt.Errorf("start %s: open cgroup %s: %w", p.Path, p.Cgroup, cause(err))
		}
		defer dir.Close()
		o.Cgroup = dir
	}
	began := e.elapsed()
	run, err := program.Start(o)
	if err != nil {
		return err
	}
	e.jobs = append(e.jobs, &job{run, p, p.Cgroup, step, began})
	e.event(Event{Kind: EventProgram, Step: e.spec.StepNumber(step), Name: p.Name, Text: "started"})
	return nil
}

// findJob is the program of a name that was not waited for yet; the latest first.
func (e *engine) findJob(name string) (*job, error) {
	for _, j := range slices.Backward(e.jobs) {
		if j.spec.Name == name {
			return j, nil
		}
	}
	return nil, fmt.Errorf("no program %s was started", name)
}

// waitJob waits for a program, and kills one that takes too long.
func (e *engine) waitJob(w *spec.WaitProgram) error {
	j, err := e.findJob(w.Program)
	if err != nil {
		return err
	}
	t := time.NewTimer(time.Duration(w.Timeout))
	defer t.Stop()
	select {
	case <-j.program.Done():
		e.finishJob(j, false)
		return nil
	case <-e.ctx.Done():
		return nil // it ends with its step
	case <-t.C:
	}
	if _, err := j.program.Stop(unix.SIGKILL, termGrace); err != nil {
		return err
	}
	e.finishJob(j, true)
	return fmt.Errorf("program %s did not end within %v", w.Program, w.Timeout)
}

func (e *engine) killJob(name string) error {
	j, err := e.findJob(name)
	if err != nil {
		return err
	}
	if _, err := j.program.Stop(unix.SIGKILL, termGrace); err != nil {
		return err
	}
	e.finishJob(j, true)
	return nil
}

// endJobs ends programs, those in frozen cgroups too.
func (e *engine) endJobs(pick func(*job) bool) {
	for _, j := range slices.Clone(e.jobs) {
		if !pick(j) {
			continue
		}
		ended := false
		select {
		case <-j.program.Done():
			ended = true
		default:
		}
		if !ended {
			if j.cgroup != "" {
				if err := e.tree.thaw(j.cgroup); err != nil {
					e.note("%v", err)
				}
			}
			if _, err := j.program.Stop(unix.SIGTERM, termGrace); err != nil {
				e.fail("program %s: %v", j.spec.Name, err)
				e.jobs = slices.DeleteFunc(e.jobs, func(x *job) bool { return x == j })
				continue
			}
		}
		e.finishJob(j, !ended)
	}
}

// finishJob keeps what is known of a program that has ended. stopped is whether
// this run ended it.
func (e *engine) finishJob(j *job, stopped bool) {
	e.jobs = slices.DeleteFunc(e.jobs, func(x *job) bool { return x == j })
	exit := j.program.Exit()
	if !stopped && (exit.Code != 0 || exit.Err != nil) {
		if j.spec.MayFail {
			e.note("program %s: %s", j.spec.Name, exit)
		} else {
			e.fail("program %s: %s", j.spec.Name, exit)
		}
	}
	e.event(Event{Kind: EventProgram, Step: e.spec.StepNumber(j.step), Name: j.spec.Name, Text: exit.String()})
	if len(e.run.Programs) == maxJobs {
		return
	}
	e.run.Programs = append(e.run.Programs, report.Program{
		Name: j.spec.Name, Path: j.spec.Path, Args: j.spec.Args, Cgroup: j.spec.Cgroup, Step: e.spec.StepNumber(j.step),
		Exit: exit.String(), Code: exit.Code, Signal: exit.Signal, Stopped: stopped,
		StartMs: ms(j.began), RanMs: ms(e.elapsed() - j.began),
		Output: strings.ToValidUTF8(j.program.Output(), "\uFFFD"),
	})
}
