package guest

import (
	"fmt"
	"io"

	"github.com/guestinit/guestinit/check"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// output is a Sink that is closed once, after the run.
type output interface {
	Sink
	close() error
}

func (b *boot) newOutput() output {
	if b.link == nil {
		return &consoleOutput{w: b.con, spec: b.parsed}
	}
	return &linkOutput{open: b.link.ReportWriter}
}

// linkOutput encodes the report onto the link. It is set up on first use, when
// the workers are done: nothing of it disturbs them.
type linkOutput struct {
	open func() io.WriteCloser
	w    io.WriteCloser
	enc  *report.Encoder
}

func (o *linkOutput) encoder() (*report.Encoder, error) {
	if o.enc != nil {
		return o.enc, nil
	}
	w := o.open()
	enc, err := report.NewEncoder(w)
	if err != nil {
		return nil, err
	}
	o.w, o.enc = w, enc
	return enc, nil
}

func (o *linkOutput) Header(run report.Run) error {
	enc, err := o.encoder()
	if err != nil {
		return err
	}
	return enc.Header(run)
}

func (o *linkOutput) Worker(w *report.Worker) error {
	enc, err := o.encoder()
	if err != nil {
		return err
	}
	return enc.Worker(w)
}

func (o *linkOutput) Trailer(t report.Trailer) error {
	enc, err := o.encoder()
	if err != nil {
		return err
	}
	return enc.Trailer(t)
}

func (o *linkOutput) close() error {
	if o.enc == nil {
		return nil // the run failed before its header; the bye says why
	}
	if err := o.enc.Close(); err != nil {
		return err // without the last chunk the host knows that it is torn
	}
	return o.w.Close()
}

// Bounds of a report for the console.
const (
	consoleWorkers = 10_000 // kept; the guest has no host to stream them to
	consoleWidth   = 100    // columns
	consoleChunk   = 4096   // bytes per write
)

// consoleOutput keeps the report and prints its table at the end.
type consoleOutput struct {
	w       io.Writer
	spec    *spec.Spec
	rep     report.Report
	begun   bool
	dropped int
}

func (o *consoleOutput) Header(run report.Run) error {
	o.begun = true
	o.rep.SchemaVersion = report.SchemaVersion
	o.rep.Run = run
	return nil
}

func (o *consoleOutput) Worker(w *report.Worker) error {
	if len(o.rep.Workers) == consoleWorkers {
		o.dropped++
		return nil
	}
	for _, l := range []*report.Latency{w.WakeLatency, w.IterationCost, w.TimerLatency} {
		if l != nil {
			l.Samples = nil // the table has none, and they are gone after the run
		}
	}
	o.rep.Workers = append(o.rep.Workers, *w)
	return nil
}

func (o *consoleOutput) Trailer(t report.Trailer) error {
	o.rep.Run, o.rep.Notes, o.rep.Failures = t.Run, t.Notes, t.Failures
	return nil
}

func (o *consoleOutput) close() error {
	if !o.begun {
		return nil
	}
	if o.dropped > 0 {
		o.rep.Notes = append(o.rep.Notes, fmt.Sprintf("%d workers above %d are left out; run with a host link to have all", o.dropped, consoleWorkers))
	}
	check.Finish(&o.rep, o.spec)
	if err := report.WriteTable(&chunked{o.w}, &o.rep, consoleWidth); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}

// chunked cuts writes into pieces that the console takes one by one.
type chunked struct{ w io.Writer }

func (c *chunked) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		n, err := c.w.Write(p[total:min(len(p), total+consoleChunk)])
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
