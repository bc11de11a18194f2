package scx

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/program"
	"github.com/guestinit/guestinit/report"
)

// Bounds and intervals of waits.
const (
	enableTimeout = 30 * time.Second // from the program's start until the kernel has enabled its scheduler
	enableLook    = 10 * time.Millisecond
	watchLook     = 500 * time.Millisecond // between looks when the kernel's log is silent
	settleTimeout = 3 * time.Second        // from a failure until the kernel has disabled the scheduler and logged why
	lastWords     = 2 * time.Second        // for the program to report its scheduler's end
	stopGrace     = 5 * time.Second        // from SIGINT to SIGKILL
	disableWait   = 10 * time.Second       // from the program's end until sched_ext is disabled
)

// What is kept of the program's output, in bytes. The kernel's dump of a failed
// scheduler, which programs print at their end, has 32 KiB.
const (
	outputHead = 8 << 10
	outputTail = 48 << 10
)

// Options is the scheduler to run.
type Options struct {
	Path string // of the program
	Args []string

	sysfs, kmsg   string // of tests
	enableTimeout time.Duration
}

// Scheduler is a scheduler that was enabled.
type Scheduler struct {
	opts     Options
	kernel   kernel
	log      *kernelLog
	program  *program.Program
	started  time.Time
	name     string
	seq      uint64 // enable_seq, to notice another scheduler in its place
	rejected uint64 // nr_rejected at the start

	failed   chan struct{} // closed when it has stopped working
	stopping chan struct{}
	watched  chan struct{} // closed when the watch has ended
	events   atomic.Pointer[map[string]uint64]
	result   report.Scheduler

	judged  sync.Mutex
	verdict *Failure // nil: none yet
}

// Start starts the program and waits until the kernel has enabled its scheduler,
// at most 30 s. The error is a *Failure if the program ran and the scheduler was
// not enabled. Any other means that nothing was tried: it matches ErrUnsupported
// on a kernel without sched_ext.
func Start(ctx context.Context, o Options) (*Scheduler, error) {
	o = o.withDefaults()
	s := &Scheduler{
		opts: o, kernel: kernel{o.sysfs}, started: time.Now(),
		failed: make(chan struct{}), stopping: make(chan struct{}), watched: make(chan struct{}),
		result: report.Scheduler{Path: o.Path, Args: o.Args},
	}
	if err := s.kernel.supported(); err != nil {
		return nil, fmt.Errorf("start scheduler %s: %w", o.Path, err)
	}
	if state := s.kernel.state(); state != stateDisabled {
		return nil, fmt.Errorf("start scheduler %s: sched_ext is %s already, with scheduler %q; end that one first", o.Path, state, s.kernel.scheduler())
	}
	s.seq, s.rejected = s.kernel.number("enable_seq"), s.kernel.number("nr_rejected")
	s.log = followLog(o.kmsg)
	p, err := program.Start(program.Options{Path: o.Path, Args: o.Args, Head: outputHead, Tail: outputTail})
	if err != nil {
		s.log.close()
		return nil, fmt.Errorf("start scheduler: %w; a guest needs it in its image (--file), outside of /tmp, /run and /dev", err)
	}
	s.program = p
	if f := s.awaitEnabled(ctx); f != nil {
		return nil, s.fail(f)
	}
	s.result.Name, s.result.EnableMs = s.name, ms(time.Since(s.started))
	s.result.SwitchAll, s.result.State = s.kernel.number("switch_all") == 1, stateEnabled
	s.seq = s.kernel.number("enable_seq")
	s.look()
	go s.watch()
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.sysfs == "" {
		o.sysfs = sysfs
	}
	if o.kmsg == "" {
		o.kmsg = kmsg
	}
	if o.enableTimeout == 0 {
		o.enableTimeout = enableTimeout
	}
	return o
}

// awaitEnabled waits until the kernel has enabled the scheduler.
func (s *Scheduler) awaitEnabled(ctx context.Context) *Failure {
	deadline := time.NewTimer(s.opts.enableTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(enableLook)
	defer tick.Stop()
	for {
		// The kernel counts last: from then on another number means another scheduler.
		if s.kernel.state() == stateEnabled && s.kernel.number("enable_seq") != s.seq {
			if s.name = s.kernel.scheduler(); s.name != "" {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-s.program.Done():
			return s.unborn("")
		case <-deadline.C:
			return s.unborn(fmt.Sprintf("it enabled no scheduler within %v", s.opts.enableTimeout))
		case <-ctx.Done():
			return s.unborn("the run ended before it was enabled: " + context.Cause(ctx).Error())
		}
	}
}

// unborn is the failure of a scheduler that was not seen enabled: because of
// why, or because its program ended.
func (s *Scheduler) unborn(why string) *Failure {
	f := &Failure{Kind: Refused, Name: s.opts.Path, Reason: why}
	r, known := s.reason()
	switch {
	case why != "":
	case known && s.kernel.number("enable_seq") != s.seq: // it was, between two looks
		f.Kind, f.Reason = r.kind(), r.String()
		if f.Kind == Exited {
			f.Reason = s.program.Exit().String()
		}
	case known:
		f.Reason = fmt.Sprintf("%s (%s)", r, s.program.Exit())
	default:
		f.Reason = s.program.Exit().String()
		if last := lastLine(s.program.Output()); last != "" {
			f.Reason = fmt.Sprintf("%s (%s)", last, f.Reason)
		}
	}
	return f
}

// Report is what is known of the scheduler since its start; what its end brings is
// in what Stop returns.
func (s *Scheduler) Report() report.Scheduler { return s.result }

// Name is the scheduler's name, as the kernel has it.
func (s *Scheduler) Name() string { return s.name }

// Failed is closed when the scheduler has stopped working. Stop tells why.
func (s *Scheduler) Failed() <-chan struct{} { return s.failed }

// watch waits for the scheduler's failure, or for Stop.
func (s *Scheduler) watch() {
	defer close(s.watched)
	tick := time.NewTicker(watchLook)
	defer tick.Stop()
	for {
		select {
		case <-s.stopping:
			return
		case <-s.program.Done():
			close(s.failed)
			return
		case <-s.log.news:
		case <-tick.C:
		}
		if !s.look() {
			close(s.failed)
			return
		}
	}
}

// look tells whether the scheduler still schedules, and keeps its counters, which
// go with it.
func (s *Scheduler) look() bool {
	events := s.kernel.events()
	if s.kernel.state() != stateEnabled || s.kernel.scheduler() != s.name || s.kernel.number("enable_seq") != s.seq {
		return false
	}
	if events != nil {
		s.events.Store(&events)
	}
	return true
}

// Stop ends the scheduler and its program and says what became of them. The
// error is a *Failure if the scheduler did not work until now.
func (s *Scheduler) Stop() (report.Scheduler, error) {
	close(s.stopping)
	<-s.watched
	s.result.RanMs = ms(time.Since(s.started)) - s.result.EnableMs
	if f := s.judge(); f != nil {
		return s.result, s.fail(f)
	}
	s.end()
	return s.result, nil
}

// fail ends a scheduler that failed.
func (s *Scheduler) fail(f *Failure) error {
	s.result.Failure, s.result.Reason = f.Kind, f.Reason
	s.end()
	f.Report = s.result
	return f
}

// Check says why the scheduler does not schedule any more, as a *Failure; nil as
// long as it does. It waits up to 3 s for the kernel and the program to say all.
func (s *Scheduler) Check() error {
	if f := s.judge(); f != nil {
		return f
	}
	return nil
}

// judge is the failure of the scheduler, or nil. The first one found stays.
func (s *Scheduler) judge() *Failure {
	s.judged.Lock()
	defer s.judged.Unlock()
	if s.verdict == nil {
		s.verdict = s.diagnose()
	}
	return s.verdict
}

func (s *Scheduler) diagnose() *Failure {
	select {
	case <-s.failed:
	default:
		if s.look() {
			return nil
		}
	}
	s.settle()
	f := &Failure{Name: s.name, Kind: Ejected}
	r, known := s.reason()
	switch {
	case known && r.kind() != Exited:
		f.Kind, f.Reason = r.kind(), r.String()
	case s.ended():
		f.Kind, f.Reason = Exited, s.program.Exit().String()
		if last := lastLine(s.program.Output()); last != "" {
			f.Reason += ": " + last
		}
	case known:
		f.Kind, f.Reason = Exited, r.String()+", and its program lives on"
	case s.kernel.state() == stateEnabled:
		f.Reason = fmt.Sprintf("scheduler %q is in its place", s.kernel.scheduler())
	default:
		f.Reason = "the kernel's log says no reason"
	}
	return f
}

// settle waits for the kernel and the program to have said all that they have to
// say of the failure.
func (s *Scheduler) settle() {
	begin := time.Now()
	tick := time.NewTicker(enableLook)
	defer tick.Stop()
	for range tick.C {
		_, known := s.reason()
		took := time.Since(begin)
		if took > settleTimeout || s.kernel.state() == stateDisabled && known && (s.ended() || took > lastWords) {
			return
		}
	}
}

// reason is why the scheduler ended, from the best source that says something. A
// message that only the program has completes what the kernel's log says.
func (s *Scheduler) reason() (reason, bool) {
	said, told := reasonInOutput(s.program.Output())
	r, ok := reasonInLog(s.log.all())
	if !ok {
		return said, told
	}
	if r.message == "" && told && said.what == r.what {
		r.message = said.message
	}
	return r, true
}

func (s *Scheduler) ended() bool {
	select {
	case <-s.program.Done():
		return true
	default:
		return false
	}
}

// end ends the program, waits until sched_ext is disabled and completes the
// result.
func (s *Scheduler) end() {
	defer s.log.close()
	s.result.State = s.kernel.state()
	s.result.NrRejected = s.kernel.number("nr_rejected") - s.rejected
	if events := s.events.Load(); events != nil {
		s.result.Events = *events
	}
	killed, err := s.program.Stop(unix.SIGINT, stopGrace)
	switch {
	case err != nil:
		s.result.Exit = err.Error()
	case killed:
		s.result.Exit = fmt.Sprintf("%s, as it did not end within %v of SIGINT", s.program.Exit(), stopGrace)
	default:
		s.result.Exit = s.program.Exit().String()
	}
	if !s.awaitDisabled() {
		s.result.Exit += fmt.Sprintf("; sched_ext is still %s %v later", s.kernel.state(), disableWait)
	}
	s.result.Output, s.result.KernelLog = s.program.Output(), s.log.all()
}

// awaitDisabled waits until the kernel has taken all tasks back.
func (s *Scheduler) awaitDisabled() bool {
	begin := time.Now()
	tick := time.NewTicker(enableLook)
	defer tick.Stop()
	for s.kernel.state() != stateDisabled {
		if time.Since(begin) > disableWait {
			return false
		}
		<-tick.C
	}
	return true
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
