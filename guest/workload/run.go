package workload

import (
	"context"
	"time"

	"github.com/guestinit/guestinit/guest"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
)

// run is the workload of a guest: the spec through the pipeline, the report to
// the host.
func run(ctx context.Context, s *spec.Spec, env guest.Env) error {
	if err := scenario.Validate(s); err != nil {
		return &guest.Error{Status: vsock.StatusSpec, Err: err}
	}
	sent := 0 // fewer than the spec has if its scheduler was refused
	res, err := scenario.Run(ctx, s, env.Run, scenario.Sink{
		Samples: s.Samples,
		Begin:   env.Sink.Header,
		Worker: func(w *report.Worker) error {
			sent++
			return env.Sink.Worker(w)
		},
		Event:    func(e scenario.Event) { _ = env.Event(Event(e)) },
		Progress: func(_ time.Duration, groups []scenario.Progress) { _ = env.Event(Progress(groups)) },
	})
	if err != nil {
		return err
	}
	return env.Sink.Trailer(report.Trailer{
		WorkerCount: sent,
		Run:         res.Run,
		Notes:       append(env.Notes, res.Notes...),
		Failures:    res.Failures,
	})
}

// Event is an event of the workload for whoever watches: the begin of a phase, or
// what happens at a step.
func Event(e scenario.Event) vsock.Event {
	if e.Kind == scenario.EventPhase {
		return vsock.Event{Kind: vsock.EventPhase, Phase: e.Name, Step: e.Step, Text: e.Text}
	}
	return vsock.Event{Kind: vsock.EventStep, Step: e.Step, Text: e.String()}
}

// Progress is an event that says how many workers of each group live, and how many
// iterations they have done together.
func Progress(groups []scenario.Progress) vsock.Event {
	e := vsock.Event{Kind: vsock.EventProgress}
	for i, g := range groups {
		e.Groups = append(e.Groups, vsock.GroupProgress{Index: i, Alive: g.Alive, Iterations: g.Iterations})
	}
	return e
}
