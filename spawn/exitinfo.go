package spawn

import (
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/worker"
)

// explain says how a worker ended that committed no report.
func (h *Handle) explain(m *member) *report.ExitInfo {
	s := m.slab
	p := &process{}
	if m.proc >= 0 {
		p = h.procs[m.proc]
	}
	switch {
	case m.waitErr != nil:
		return &report.ExitInfo{Kind: report.ExitWaitFailed, Text: m.waitErr.Error()}
	case p.waitErr != nil:
		return &report.ExitInfo{Kind: report.ExitWaitFailed, Text: p.waitErr.Error()}
	case m.timedOut:
		return timedOut(&s.Fault, m.proc < 0)
	case p.program != nil && state(s) >= worker.StateRunning && (p.program.ended || s.ExecErrno != 0):
		return p.program.explain(&p.exit, h.plans[m.group].work.Lists[worker.ExecArgv][0])
	case s.ExitWord != 0:
		code := int(s.ExitWord - 1)
		return &report.ExitInfo{Kind: report.ExitExited, Code: code, Text: exitText(code, state(s))}
	case p.exit.killed:
		return h.signaledProcess(p, s)
	case m.proc < 0:
		return signaled(unix.Signal(s.Fault.Signal), &s.Fault)
	}
	reached := state(s)
	if p.container != nil { // its members come to life behind the gate
		reached = max(reached, atomic.LoadUint32(&p.container.State))
	}
	text := exitText(p.exit.value, reached)
	if c := p.container; c != nil && c.Errno != 0 {
		text = fmt.Sprintf("its container could start %d of %d workers: %v", c.Alive, c.Members, unix.Errno(c.Errno))
	}
	return &report.ExitInfo{Kind: report.ExitExited, Code: p.exit.value, Text: text}
}

// timedOut explains a worker that did not stop. A thread is ended by a fault
// signal, which shows where it was.
func timedOut(f *bare.Fault, thread bool) *report.ExitInfo {
	e := &report.ExitInfo{Kind: report.ExitTimedOut, Signal: int(unix.SIGKILL),
		Text: fmt.Sprintf("did not commit its report within %v of the request to stop; killed", commitTimeout)}
	if thread {
		e.Signal = int(unix.SIGSEGV)
		if f.Signal != 0 {
			e.Stack = symbolise(f)
		}
	}
	return e
}

// signaledProcess explains a worker whose process died by a signal. In a
// container one worker's fault is the end of all.
func (h *Handle) signaledProcess(p *process, s *worker.Slab) *report.ExitInfo {
	e := signaled(unix.Signal(p.exit.value), &s.Fault)
	if p.container != nil && s.Fault.Signal == 0 {
		e.Text += ", which ended its container"
	}
	return e
}

// exitText explains the exit statuses that the pipeline itself uses.
func exitText(code int, reached uint32) string {
	switch {
	case code == worker.ExitGate && reached == worker.StateAtGate:
		return "the start gate did not open within 30s"
	case code == worker.ExitBirth && reached == worker.StateUnborn:
		return "a step of its birth failed"
	case code == 0 && reached == worker.StateUnborn:
		return "found its spawner gone"
	}
	return ""
}

// signaled explains a death by signal. A fault in the worker's own code comes
// with its stack; one that the runtime's panic entries raised is a panic.
func signaled(sig unix.Signal, f *bare.Fault) *report.ExitInfo {
	e := &report.ExitInfo{Kind: report.ExitSignaled, Signal: int(sig), Text: unix.SignalName(sig)}
	if f.Signal == 0 || unix.Signal(f.Signal) != sig {
		return e
	}
	e.Stack = symbolise(f)
	if why := panicText(e.Stack); why != "" {
		e.Kind, e.Text = report.ExitPanicked, why
	} else if f.Code > 0 { // raised by the CPU, not sent
		e.Text = fmt.Sprintf("%s at address %#x", unix.SignalName(sig), f.Addr)
	}
	return e
}

// panics maps the runtime's ways to panic to what went wrong.
var panics = []struct{ frame, why string }{
	{"runtime.morestack", "stack overflow"},
	{"runtime.goPanicIndex", "index out of range"},
	{"runtime.panicBounds", "index or slice bounds out of range"},
	{"runtime.goPanicSlice", "slice bounds out of range"},
	{"runtime.panicdivide", "division by zero"},
	{"runtime.panicshift", "negative shift amount"},
	{"runtime.gopanic", "panic"},
}

func panicText(stack []string) string {
	for _, p := range panics {
		for _, frame := range stack {
			if strings.HasPrefix(frame, p.frame) {
				return p.why
			}
		}
	}
	return ""
}

// symbolise names the frames of a fault, innermost first: function, file and
// line.
func symbolise(f *bare.Fault) []string {
	pcs := []uintptr{uintptr(f.PC) + 1} // Frames takes return addresses
	for _, pc := range f.Stack[:min(f.Frames, bare.MaxFrames)] {
		pcs = append(pcs, uintptr(pc))
	}
	var stack []string
	for frames := runtime.CallersFrames(pcs); ; {
		frame, more := frames.Next()
		if frame.Function == "" {
			stack = append(stack, fmt.Sprintf("%#x", frame.PC))
		} else {
			stack = append(stack, fmt.Sprintf("%s (%s:%d)", frame.Function, path.Base(frame.File), frame.Line))
		}
		if !more {
			return stack
		}
	}
}
