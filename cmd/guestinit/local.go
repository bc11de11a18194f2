package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/guestinit/guestinit/check"
	"github.com/guestinit/guestinit/guest/workload"
	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
)

// interruptible returns a context that ends on SIGINT, SIGTERM and, unless nohup
// has it ignored, SIGHUP. A second signal ends the program at once.
func interruptible() (context.Context, context.CancelFunc) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	go func() {
		<-ctx.Done()
		stop()
	}()
	return ctx, stop
}

func setUpLocal(fs *flag.FlagSet) func([]string, streams) int {
	var out output
	var live feed
	out.flags(fs)
	live.flags(fs)
	return func(args []string, io streams) int {
		s, err := readSpec(args, io.in)
		if err == nil {
			err = live.check(&out)
		}
		if err != nil {
			return fail(io, launch.Usage, err)
		}
		show, err := live.open(io)
		if err == nil {
			err = out.open()
		}
		if err != nil {
			return fail(io, launch.Setup, err)
		}
		s.Samples = s.Samples || out.samples
		ctx, stop := interruptible()
		defer stop()
		r, err := runLocal(ctx, s, show)
		io = live.close(io)
		if err != nil {
			err = &launch.Error{Class: launch.Setup, Msg: "run workload", Err: err}
		}
		return live.status(out.finish(r, err, io))
	}
}

// runLocal runs the spec on this machine.
func runLocal(ctx context.Context, s *spec.Spec, show func(launch.Event)) (*report.Report, error) {
	meter := launch.NewMeter(groupNames(s))
	begin := time.Now()
	r := &report.Report{SchemaVersion: report.SchemaVersion}
	res, err := scenario.Run(ctx, s, report.Run{Version: version(), Accelerator: "none", Link: "none"}, scenario.Sink{
		Samples: s.Samples,
		Begin: func(report.Run) error {
			show(launch.Event{Stage: launch.StagePhase, At: time.Since(begin), Text: fmt.Sprintf("%s, for %v", report.Plural(s.Workers(), "worker"), s.Duration)})
			return nil
		},
		Event: func(e scenario.Event) {
			ev, stage := workload.Event(e), launch.StageStep
			if ev.Kind == vsock.EventPhase {
				stage = launch.StagePhase
			}
			show(launch.Event{Stage: stage, At: time.Since(begin), Phase: ev.Phase, Step: ev.Step, Text: ev.Text})
		},
		Progress: func(elapsed time.Duration, groups []scenario.Progress) {
			show(launch.Event{Stage: launch.StageProgress, At: time.Since(begin), Groups: meter.Progress(elapsed, workload.Progress(groups).Groups)})
		},
		Worker: func(w *report.Worker) error {
			w.CopySamples()
			r.Workers = append(r.Workers, *w)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	show(launch.Event{Stage: launch.StageReport, At: time.Since(begin), Text: report.Plural(len(r.Workers), "worker")})
	r.Run, r.Notes, r.Failures = res.Run, res.Notes, res.Failures
	if errors.Is(ctx.Err(), context.Canceled) {
		err = errors.New("interrupted; the report covers the time until then")
		r.Failures = append(r.Failures, err.Error())
	}
	check.Finish(r, s)
	return r, err
}

func groupNames(s *spec.Spec) []string {
	var names []string
	for _, g := range check.GroupInfos(s) {
		names = append(names, g.Name)
	}
	return names
}
