package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
)

// overrunWait is how long a run may go on after its deadline, to stop its
// workers and to send what they measured.
const overrunWait = 30 * time.Second

// RunFunc runs the workload that a spec describes (env.Run.Spec is its JSON), and
// sends the report into env.Sink: Header, a Worker each, Trailer. When ctx ends
// it stops early and reports what there is; it has 30 s for that. An error that
// is an *Error chooses the status of the bye, context.DeadlineExceeded leads to
// vsock.StatusTimeout, any other to vsock.StatusSetup.
type RunFunc func(ctx context.Context, s *spec.Spec, env Env) error

// Sink takes a report as it comes into being; *report.Encoder is one.
type Sink interface {
	Header(run report.Run) error
	Worker(w *report.Worker) error
	Trailer(t report.Trailer) error
}

// Env is what a run gets from the guest it runs in.
type Env struct {
	Sink    Sink
	Event   func(vsock.Event) error // to the host, with AtNs filled in; without a host it does nothing
	Log     func(text string)       // a line for people: to the console and, as an event, to the host
	Run     report.Run              // what the guest knows: version, kernel, command line, link, boot_ms
	Notes   []string                // of the boot, for the report's notes
	Cmdline cmdline.Line
	BootMs  map[string]float64 // the same as Run.BootMs
}

// execute runs the workload and sees its report off.
func (b *boot) execute() error {
	reap := startReaper(b.opts.Owned, b.path("proc"))
	defer reap.Close()
	// For init a SIGHUP is no reason to end, which it would be to the Go runtime.
	// A handler that drops it is not inherited, as ignoring it would be.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	// A power button or a kill from inside ends the run early, with its report.
	signaled, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	defer stop()
	ctx, cancel := context.WithTimeout(signaled, b.deadline())
	defer cancel()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if b.link != nil {
		// A workload that nobody waits for is stopped, and the guest ends.
		lost := b.link.Watch()
		go func() {
			select {
			case <-lost:
				leave(b.link.Err())
			case <-ctx.Done():
			}
		}()
	}
	if !b.line.Quiet {
		b.con.printf("run: begins %v after the kernel", bootTime().Round(time.Millisecond))
	}
	out := b.newOutput()
	ended := make(chan error, 1)
	go func() {
		ended <- guard("run", func() error { return b.run(ctx, b.parsed, b.env(out)) })
	}()
	err := awaitRun(ctx, ended, overrunWait)
	if errors.Is(err, errOverrun) {
		return err // the run still holds the output
	}
	if err == nil && signaled.Err() != nil {
		err = fmt.Errorf("ended early, the report covers the time until then: %w", context.Cause(signaled))
	}
	return errors.Join(err, out.close())
}

// errOverrun: the run did not return after it was told to stop.
var errOverrun = errors.New("the run does not end")

// setUpWait is what a run may take to set up its workers, on top of the spec's
// deadline, which counts from their start.
const setUpWait = time.Minute

// deadline is when a run is told to stop, should it not have stopped by itself.
func (b *boot) deadline() time.Duration {
	if b.line.Deadline > 0 {
		return b.line.Deadline
	}
	return time.Duration(b.parsed.Deadline) + setUpWait
}

// awaitRun waits for the end of the run, at most grace longer than ctx.
func awaitRun(ctx context.Context, ended <-chan error, grace time.Duration) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case err := <-ended:
		return err
	case <-t.C:
		return &Error{vsock.StatusTimeout, fmt.Errorf("%w within %v of its deadline or a signal\n%s", errOverrun, grace, stacks())}
	}
}

// stacks returns the stacks of all goroutines, as far as they fit a message.
func stacks() string {
	buf := make([]byte, vsock.MaxText)
	return string(buf[:runtime.Stack(buf, true)])
}

func (b *boot) env(out output) Env {
	uts := uname()
	return Env{
		Sink:  out,
		Event: b.event,
		Log: func(text string) {
			b.con.printf("%s", text)
			_ = b.event(vsock.Event{Kind: vsock.EventLog, Text: text}) // the console has it
		},
		Run: report.Run{
			Version:       b.opts.Version,
			KernelRelease: uts.release,
			Machine:       uts.machine,
			KernelCmdline: b.line.Raw,
			Accelerator:   report.AcceleratorUnknown,
			Link:          b.device,
			Clocksource:   b.clocksource(),
			BootMs:        b.bootMs,
			Spec:          b.spec,
		},
		Notes:   b.notes,
		Cmdline: b.line,
		BootMs:  b.bootMs,
	}
}

func (b *boot) event(e vsock.Event) error {
	if b.link == nil {
		return nil
	}
	e.AtNs = int64(bootTime())
	return b.link.Event(e)
}

func (b *boot) clocksource() string {
	text, err := readFile(b.path("sys/devices/system/clocksource/clocksource0/current_clocksource"), 4096)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
