package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/vsock"
	"github.com/guestinit/guestinit/vsock/vhostuser"
)

// attempt is one boot of the guest, followed to its end.
type attempt struct {
	r       *runner
	accel   qemu.Accelerator
	vm      *qemu.VM
	started time.Time
	heard   atomic.Int64 // when the guest last sent a byte, after started, in nanoseconds

	hello  chan struct{} // closed when the guest said hello
	served chan served   // the conversation's end
	meter  *Meter
	ends   *linkEnd // the host's end of the link
	shown  int      // console findings passed on as events

	// stalled: the guest never reached /init. Only then is another
	// accelerator worth a try.
	stalled string
	toHello time.Duration
	over    *served
	killed  bool
}

type served struct {
	out  vsock.Outcome
	link string // what carried it; "" if the guest never came
	err  error
}

// linkError is the error of a link that the host cannot make its end of.
type linkError struct{ err error }

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// ended is what is left of an attempt.
type ended struct {
	facts
	rep     *report.Report
	link    string // what carried the conversation
	console []byte
	bootMs  map[string]float64
	notes   []string
	stalled string // why, if the guest never reached /init
}

// boot runs one attempt. Its error is for a QEMU that could not be started;
// how a started one ended stands in ended.
func (r *runner) boot(ctx context.Context, accel qemu.Accelerator) (*ended, error) {
	files, err := r.openOutputs()
	if err != nil {
		return nil, err
	}
	defer files.close()
	c := r.config
	c.Accel = accel
	if c.Append, err = r.line(); err != nil {
		return nil, err
	}
	end, err := r.link.open(r, &c)
	if err != nil {
		return nil, &linkError{err}
	}
	defer end.end()
	begin := time.Now()
	vm, err := qemu.Start(ctx, c, qemu.Options{Console: files.console, Initrd: r.image, Vsock: end.file})
	if err != nil {
		return nil, wrap(Setup, "start the guest", err)
	}
	end.given()
	a := &attempt{
		r: r, accel: accel, vm: vm, started: time.Now(), ends: end, meter: NewMeter(groupNames(r.o.Spec)),
		hello: make(chan struct{}), served: make(chan served, 1),
	}
	col := newCollector(files.report, reportLimits(r.o.Spec, r.o.Samples))
	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	go a.serve(serveCtx, a.handler(col))

	cause := a.supervise(ctx)
	killErr := a.end()
	r.res.Guest = time.Since(begin)
	// With QEMU gone the link ends by itself, once all that was sent is read.
	timer := time.AfterFunc(endGrace, stopServing)
	defer timer.Stop()
	if a.over == nil {
		s := <-a.served
		a.over = &s
	}
	rep, repErr := col.finish(a.over.out.ReportComplete)
	e := a.collect(cause, rep, repErr)
	e.notes = append(e.notes, files.lost(vm, col)...)
	if killErr != nil {
		e.notes = append(e.notes, killErr.Error())
	}
	return e, nil
}

// serve has the conversation with the guest, and closes the link once QEMU is
// gone: a close could overtake the answer to the guest's bye.
func (a *attempt) serve(ctx context.Context, h vsock.HostHandler) {
	conn, link, err := a.ends.accept(ctx, a.vm)
	if err != nil {
		a.served <- served{err: err}
		return
	}
	out, err := vsock.Serve(ctx, &liveConn{conn, a}, h)
	a.served <- served{out, link, err}
	<-a.vm.Done()
	conn.Close()
}

// handler passes on what the guest says. It runs in Serve's goroutine.
func (a *attempt) handler(report io.Writer) vsock.HostHandler {
	return vsock.HostHandler{
		Spec: func() []byte { return a.r.specJSON },
		OnHello: func(h vsock.Hello) {
			a.toHello = time.Since(a.started)
			a.r.emit(Event{Stage: StageHello, Text: oneLine(fmt.Sprintf("guest is up: kernel %s, guestinit %s", h.KernelRelease, h.Version))})
			close(a.hello)
		},
		OnEvent: a.event,
		Report:  report,
	}
}

func (a *attempt) event(e vsock.Event) {
	if out, ok := a.meter.guestEvent(e); ok {
		a.r.emit(out)
	}
}

// supervise waits until the attempt is over, and returns why if it had to end
// it: nil means that guest or QEMU ended by themselves.
func (a *attempt) supervise(ctx context.Context) *Error {
	t := newTimers(a)
	defer t.stop()
	hello, events := a.hello, a.vm.Events()
	for {
		select {
		case <-a.vm.Done():
			return nil
		case <-ctx.Done():
			if a.finished() {
				return nil
			}
			return interrupted(ctx)
		case <-hello:
			hello = nil
			t.up(a.r.o.Silence)
		case s := <-a.served:
			a.over = &s
			t.over(s)
		case <-a.vm.Watch().Notify():
			if a.consoleNews() {
				t.end.Reset(panicGrace)
			}
			t.first.Stop()
		case e, ok := <-events:
			if !ok {
				events = nil
			} else if err := a.qemuEvent(ctx, e); err != nil {
				return err
			}
		case <-t.end.C:
			return nil
		case <-t.first.C:
			a.stalled = fmt.Sprintf("the console said nothing for %v", kvmFirstByte)
			return &Error{Class: Timeout, Msg: "the guest did not boot under KVM: " + a.stalled}
		case <-t.boot.C:
			return a.bootTimeout()
		case <-t.total.C:
			if a.finished() {
				return nil
			}
			return &Error{Class: Timeout, Msg: fmt.Sprintf("the run did not end within %v of its boot", a.r.o.total(a.accel))}
		case <-t.silence.C:
			if left := a.r.o.Silence - a.idle(); left > 0 {
				t.silence.Reset(left)
				continue
			}
			return &Error{Class: Timeout, Msg: fmt.Sprintf("the guest said nothing for %v", a.r.o.Silence)}
		}
	}
}

// finished reports whether the guest has said all it had to say. It is not
// to blame then for a deadline that passes while it powers off.
func (a *attempt) finished() bool { return a.over != nil && a.over.out.Bye != nil }

// timers are the deadlines of an attempt.
type timers struct {
	boot, first, silence, total, end *time.Timer
}

func newTimers(a *attempt) *timers {
	t := &timers{
		boot:    time.NewTimer(a.r.o.bootTimeout(a.accel)),
		total:   time.NewTimer(a.r.o.total(a.accel)),
		first:   time.NewTimer(kvmFirstByte),
		silence: time.NewTimer(0),
		end:     time.NewTimer(0),
	}
	t.silence.Stop()
	t.end.Stop()
	if a.r.o.Timeout > 0 {
		t.total.Stop() // it bounds the context
	}
	if a.accel.Kind != qemu.KVM {
		t.first.Stop() // a quiet kernel under TCG says nothing before /init does
	}
	return t
}

// up is for a guest that said hello.
func (t *timers) up(silence time.Duration) {
	t.boot.Stop()
	t.first.Stop()
	t.silence.Reset(silence)
}

// over is for a conversation that ended: QEMU is to follow.
func (t *timers) over(s served) {
	t.boot.Stop()
	t.first.Stop()
	t.silence.Stop()
	if s.err == nil {
		t.end.Reset(powerOffGrace)
	} else {
		t.end.Reset(endGrace)
	}
}

func (t *timers) stop() {
	for _, x := range []*time.Timer{t.boot, t.first, t.silence, t.total, t.end} {
		x.Stop()
	}
}

// consoleNews passes new findings on and reports whether the guest is at its
// end.
func (a *attempt) consoleNews() (ends bool) {
	all := a.vm.Watch().Findings()
	for _, f := range all[a.shown:] {
		ends = ends || f.Kind.Ends()
		if f.Kind != qemu.RunInit && f.Kind != qemu.InitDone {
			a.r.emit(Event{Stage: StageConsole, Text: f.Line})
		}
	}
	a.shown = len(all)
	return ends
}

// qemuEvent looks into a machine that stopped: KVM that cannot go on leaves
// QEMU alive.
func (a *attempt) qemuEvent(ctx context.Context, e qemu.Event) *Error {
	if e.Name != "STOP" {
		return nil
	}
	status, err := a.vm.Status(ctx)
	if err != nil || status == "running" || status == "shutdown" {
		return nil
	}
	msg := fmt.Sprintf("QEMU stopped the guest: status %q", status)
	if status == "internal-error" && a.accel.Kind == qemu.KVM {
		a.stalled = "KVM internal error"
	}
	return &Error{Class: Setup, Msg: msg}
}

func (a *attempt) bootTimeout() *Error {
	limit := a.r.o.bootTimeout(a.accel)
	if _, ok := a.vm.Watch().Find(qemu.InitStarted); ok {
		return &Error{Class: Timeout, Msg: fmt.Sprintf("the guest reached /init but said no hello on the host link within %v", limit)}
	}
	a.stalled = fmt.Sprintf("the guest did not reach /init within %v under %s", limit, a.accel)
	return &Error{Class: Timeout, Msg: a.stalled}
}

// end makes sure that QEMU is gone.
func (a *attempt) end() error {
	select {
	case <-a.vm.Done():
		return nil
	default:
		a.killed = true
		return a.vm.Kill()
	}
}

// collect puts together what is known.
func (a *attempt) collect(cause *Error, rep *report.Report, repErr error) *ended {
	a.consoleNews()
	w := a.vm.Watch()
	e := &ended{
		facts: facts{
			cause: cause, killed: a.killed, out: a.over.out, serveErr: a.over.err, exit: a.vm.Exit(),
			findings: w.Findings(), lastLine: w.LastLine(), reportErr: repErr,
		},
		rep:     rep,
		link:    a.over.link,
		console: a.vm.ConsoleTail(),
		bootMs:  map[string]float64{},
		stalled: a.stalled,
	}
	if f, ok := w.Find(qemu.InitStarted); ok {
		e.bootMs["qemu_to_init"] = ms(f.At)
	}
	if a.toHello > 0 {
		e.bootMs["qemu_to_hello"] = ms(a.toHello)
	}
	if a.killed && e.out.Bye != nil {
		e.notes = append(e.notes, fmt.Sprintf("the guest did not power off within %v of its end and was killed", powerOffGrace))
	}
	return e
}

// linkRefused tells whether QEMU ended because of the link's device, before it
// began.
func (e *ended) linkRefused() bool {
	if e.out.Hello != nil || e.exit.Code <= 0 || len(e.console) > 0 {
		return false
	}
	for _, word := range []string{"vsock", "vhost", "memory-backend", "memfd"} {
		if strings.Contains(e.exit.Stderr, word) {
			return true
		}
	}
	return false
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// interrupted tells the launcher's own deadline from the caller's will.
func interrupted(ctx context.Context) *Error {
	var e *Error
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return &Error{Class: Setup, Msg: "interrupted", Err: context.Cause(ctx)}
}

// liveConn notes when its peer sends something.
type liveConn struct {
	net.Conn
	a *attempt
}

// Read is net.Conn's.
func (c *liveConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.a.heard.Store(int64(time.Since(c.a.started)))
	}
	if errors.Is(err, vhostuser.ErrGone) || errors.Is(err, syscall.ECONNRESET) {
		err = io.EOF // QEMU ended, or the guest's kernel ended PID 1
	}
	return n, err
}

// idle is the time since the guest last sent a byte.
func (a *attempt) idle() time.Duration {
	return time.Since(a.started) - time.Duration(a.heard.Load())
}
