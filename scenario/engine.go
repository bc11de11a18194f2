package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/topology"
)

// engine plays a spec that has more than groups: cgroups, steps, a guard.
type engine struct {
	ctx     context.Context // of the run: ends with the caller's, at the deadline, or when the guard fails
	spec    *spec.Spec
	sink    Sink
	machine *topology.Topology
	tree    *tree
	jobs    []*job
	index   map[*spec.Group]int // of the groups, in the report

	mu    sync.Mutex // crews and past are read by the watcher
	crews []*crew
	past  []Progress // what collected workers had done

	run     report.Run
	res     Result
	opened  time.Time       // the first gate
	cpusets cpuLists        // of the phase that goes on, by cgroup
	allows  cpuLists        // where groups might run in it, by name
	moved   map[string]bool // groups that an operation has moved
	moves   bool            // the spec has such operations
	playing bool            // in a phase
}

// errDeadline ends a run that takes longer than its spec allows.
var errDeadline = errors.New("the deadline has passed")

// runScenario runs a spec with the engine. An error is one of the sink; what goes
// wrong in the run is in the result.
func runScenario(ctx context.Context, s *spec.Spec, run report.Run, sink Sink) (Result, error) {
	machine, err := topology.Read()
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(time.Duration(s.Deadline), func() { cancel(errDeadline) })
	defer limit.Stop()
	e := &engine{ctx: ctx, spec: s, sink: sink, machine: machine, run: run, index: map[*spec.Group]int{}}
	e.tree = newTree(s, e.note)
	for i, g := range s.Placed() {
		e.index[g.Group] = i
	}
	s.EachOp(func(o *spec.Op) { e.moves = e.moves || o.SetAffinity != nil || o.MoveTasks != nil })
	e.past = make([]Progress, len(e.index))
	if sink.Begin != nil {
		if err := sink.Begin(run); err != nil {
			return Result{}, err
		}
	}
	stop := watch(sink, e.progress)
	began := readCPUTime()
	err = e.play()
	e.run.StealPct = stealPct(began, readCPUTime())
	stop()
	if cause := context.Cause(ctx); cause != nil {
		e.note("stopped early: %s", whyEarly(ctx))
		if errors.Is(cause, errDeadline) {
			e.fail("deadline: the run took longer than the %v that the spec allows", s.Deadline)
		}
	}
	e.run.Clocksource = clocksource()
	e.res.Run = e.run
	if err := describeTopology(&e.res.Run); err != nil {
		e.note("%v", err)
	}
	return e.res, err
}

func (e *engine) note(format string, args ...any) {
	e.res.Notes = append(e.res.Notes, fmt.Sprintf(format, args...))
}

func (e *engine) fail(format string, args ...any) {
	e.res.Failures = append(e.res.Failures, fmt.Sprintf(format, args...))
}

func (e *engine) event(ev Event) {
	if e.sink.Event != nil {
		ev.Elapsed = e.elapsed()
		e.sink.Event(ev)
	}
}

// elapsed is the time since the first gate opened.
func (e *engine) elapsed() time.Duration {
	if e.opened.IsZero() {
		return 0
	}
	return time.Since(e.opened)
}

// play sets up the backdrop, plays all steps, and takes everything down, whatever
// fails. The error is one of the sink.
func (e *engine) play() (err error) {
	defer func() {
		err = errors.Join(err, e.collect(func(*crew) bool { return true }))
		e.endJobs(func(*job) bool { return true })
		if closeErr := e.tree.close(); closeErr != nil {
			e.fail("cleaning up: %v", closeErr)
		}
	}()
	if b := e.spec.Backdrop; b != nil {
		if err := e.setUpBackdrop(b); err != nil {
			e.fail("backdrop: %v", err)
			return nil
		}
	}
	for i, hold := range e.spec.Holds() {
		if e.ctx.Err() != nil {
			break
		}
		stepErr, err := e.step(i, hold)
		if err != nil {
			return err
		}
		if stepErr != nil {
			e.stepFailed(i, stepErr)
			break
		}
	}
	e.run.DurationMs = ms(e.elapsed())
	return nil
}

func (e *engine) stepFailed(i int, err error) {
	if len(e.spec.Steps) == 0 {
		e.fail("%v", err)
		return
	}
	e.fail("step %s: %v", e.spec.Steps[i].Name, err)
	if left := len(e.spec.Steps) - 1 - i; left > 0 {
		e.note("the last %d steps were not played", left)
	}
}

// progress is how far all groups have come.
func (e *engine) progress() []Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := slices.Clone(e.past)
	for _, c := range e.crews {
		c.addProgress(all)
	}
	return all
}
