package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// progressInterval is how often Sink.Progress is called while workers run.
const progressInterval = time.Second

// Sink takes what a run brings: Begin once and first, Progress about once a
// second, Event when something happens, Worker once per worker: those of a group
// in order, groups as they are collected. Nil functions are skipped; an error of
// Begin or Worker ends the run. Progress comes from another goroutine.
type Sink struct {
	Begin    func(run report.Run) error
	Progress func(elapsed time.Duration, groups []Progress)
	Worker   func(w *report.Worker) error
	Event    func(Event)
	// Samples keeps and attaches the raw samples of every worker. They are
	// there until Worker returns; report.Worker.CopySamples makes them last.
	Samples bool
}

// Event is something that happens in a run that has cgroups or steps.
type Event struct {
	Kind    string        // one of the Event constants
	Step    int           // from 1; 0 in the backdrop and in a spec without steps
	Name    string        // of the step, the operation or the program
	Epoch   uint32        // of the phase
	Text    string        // what became of it: "begins", "ends", "started", "exit status 0"
	Elapsed time.Duration // since the first gate opened
}

// String is the event for people: "step loaded begins".
func (e Event) String() string {
	kind := e.Kind
	if kind == EventPhase {
		kind = "step"
	}
	return strings.TrimSpace(kind + " " + e.Name + " " + e.Text)
}

// The kinds of Event.
const (
	EventPhase   = "phase"
	EventOp      = "op"
	EventProgram = "program"
)

// Progress is how far a group has come.
type Progress struct {
	Alive      int    // workers that have not ended
	Iterations uint64 // sum over the workers, since the gate opened
}

// Result is what is known of a run when its last worker was collected.
type Result struct {
	Run      report.Run
	Notes    []string
	Failures []string
	Workers  int // handed to Sink.Worker
}

// Validate checks everything about a spec that can be checked without running
// it here: its form, its work types and their parameters, and what the pipeline
// admits.
func Validate(s *spec.Spec) error {
	if err := s.Validate(); err != nil {
		return err
	}
	return admit(s)
}

// Parse reads a spec and checks it as Validate does. name is the file's; every
// error has the line, column and path of what is wrong.
func Parse(data []byte, name string) (*spec.Spec, error) {
	return spec.ParseChecked(data, name, admit)
}

// Programs are the programs that a run of the spec starts: its scheduler, those
// that run beside the workers, and those that its exec workers become; by the path
// of the field that names them. The spec is valid.
func Programs(s *spec.Spec) (paths, programs []string) {
	if s.Scheduler != nil {
		paths, programs = append(paths, "scheduler.path"), append(programs, s.Scheduler.Path)
	}
	s.EachProgram(func(p *spec.Program, path string) {
		paths, programs = append(paths, path+".path"), append(programs, p.Path)
	})
	for _, g := range s.Placed() {
		work, err := worker.Parse(g.Work)
		if err == nil && work.Type.Resource == worker.ExecProgram {
			paths = append(paths, g.Path+".work.argv[0]")
			programs = append(programs, work.Lists[worker.ExecArgv][0])
		}
	}
	return paths, programs
}

func workload(s *spec.Spec, groups []spec.Group, samples bool) spawn.Workload {
	w := spawn.Workload{CloneMode: s.CloneMode, Groups: groups}
	if samples {
		w.Samples = worker.ReservoirCap
	}
	return w
}

// Run runs the spec. run holds what the caller knows of the machine, and the spec
// as canonical JSON where the caller has it already; Run adds
// what it measures. When ctx ends first, the workers are stopped and collected
// all the same, and the result says so. An error means that there was no run:
// the spec was refused, or a worker could not be born.
func Run(ctx context.Context, s *spec.Spec, run report.Run, sink Sink) (res Result, err error) {
	run.Name, run.CloneMode = s.Name, s.CloneMode
	describeMachine(&run)
	// A guest has the spec as JSON already; to encode it again is code that its
	// start would run for nothing else.
	if len(run.Spec) == 0 {
		if run.Spec, err = s.JSON(); err != nil {
			return Result{}, fmt.Errorf("encode spec: %w", err)
		}
	}
	if s.Scheduler != nil {
		return runGuarded(ctx, newScheduler(s.Scheduler), s, run, sink)
	}
	return runWorkload(ctx, s, run, sink)
}

// runWorkload runs groups the short way, and all else with the engine.
func runWorkload(ctx context.Context, s *spec.Spec, run report.Run, sink Sink) (Result, error) {
	if len(s.Steps) > 0 || len(s.Cgroups) > 0 || s.Elastic() {
		return runScenario(ctx, s, run, sink)
	}
	return runGroups(ctx, s, run, sink)
}

// runGroups gives birth to the workers, runs and collects them.
func runGroups(ctx context.Context, s *spec.Spec, run report.Run, sink Sink) (res Result, err error) {
	groups, err := resolved(s.Groups)
	if err != nil {
		return Result{}, err
	}
	h, err := spawn.Spawn(workload(s, groups, sink.Samples))
	if err != nil {
		return Result{}, err
	}
	defer func() {
		if closeErr := h.Close(); closeErr != nil {
			res.Notes = append(res.Notes, "cleaning up: "+closeErr.Error())
		}
	}()
	run.Spawner = h.Spawner()
	if sink.Begin != nil {
		if err := sink.Begin(run); err != nil {
			return Result{}, err
		}
	}
	c := crew{handle: h, groups: groups, index: indexes(len(groups))}
	stopWatching := watch(sink, c.progress)
	began := readCPUTime()
	workers, err := h.Run(ctx, duration(s))
	run.StealPct = stealPct(began, readCPUTime())
	stopWatching()
	if err != nil {
		return Result{}, err
	}
	t := h.Timing()
	run.DurationMs, run.CollectMs, run.StartSkewNs = ms(t.Run), ms(t.Collect), int64(t.StartSkew)
	run.Spawner = h.Spawner()
	run.Clocksource = clocksource() // it may have changed since the boot
	res = Result{Run: run, Notes: append(h.Notes(), notes(groups, workers)...), Workers: len(workers)}
	if err := describeTopology(&res.Run); err != nil { // now: before, it would be part of every boot
		res.Notes = append(res.Notes, err.Error())
	}
	if t.Run < duration(s) {
		res.Notes = append(res.Notes, fmt.Sprintf("stopped after %v of %v: %s", t.Run.Round(time.Millisecond), time.Duration(s.Duration), whyEarly(ctx)))
	}
	if limit := time.Duration(s.Deadline); limit > 0 && t.Run+t.Collect > limit {
		res.Failures = append(res.Failures, fmt.Sprintf("deadline: the run took %v, the spec allows %v", (t.Run+t.Collect).Round(time.Millisecond), limit))
	}
	return res, deliver(h, workers, c.index, sink)
}

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// progress is how far the groups of the crew have come.
func (c *crew) progress() []Progress {
	all := make([]Progress, len(c.groups))
	c.addProgress(all)
	return all
}

// deliver hands the reports out one by one; index is what the report calls each
// group.
func deliver(h *spawn.Handle, workers []report.Worker, index []int, sink Sink) error {
	if sink.Worker == nil {
		return nil
	}
	for i := range workers {
		workers[i].GroupIndex = index[workers[i].GroupIndex]
		if sink.Samples {
			h.AttachSamples(i, &workers[i])
		}
		if err := sink.Worker(&workers[i]); err != nil {
			return fmt.Errorf("deliver report of worker %d: %w", i, err)
		}
		workers[i] = report.Worker{} // its samples can go
	}
	return nil
}

// duration is how long the workers run: the spec's duration, or its deadline if
// that is shorter.
func duration(s *spec.Spec) time.Duration {
	d := time.Duration(s.Duration)
	if limit := time.Duration(s.Deadline); limit > 0 {
		d = min(d, limit)
	}
	return d
}

// whyEarly says why a run ended before its duration.
func whyEarly(ctx context.Context) string {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return "no worker was left"
	case errors.Is(cause, context.Canceled):
		return "interrupted"
	default:
		return cause.Error()
	}
}

// watch reports progress while workers run, until the function that it returns
// is called.
func watch(sink Sink, progress func() []Progress) (stop func()) {
	if sink.Progress == nil {
		return func() {}
	}
	begin := time.Now()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				sink.Progress(time.Since(begin), progress())
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
