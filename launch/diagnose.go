package launch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/vsock"
)

// facts is what is known after an attempt.
type facts struct {
	cause     *Error // why the launcher ended it, nil if it did not
	killed    bool   // the launcher killed QEMU
	kvmDoubt  string // why the KVM that was insisted on is not to be trusted, "" if it is
	out       vsock.Outcome
	serveErr  error
	exit      qemu.Exit
	findings  []qemu.Finding
	lastLine  string
	reportErr error
}

// diagnose names the end of an attempt, or returns nil if the guest did all it
// was asked to and its kernel has nothing to answer for. The console is asked
// first: whatever else went wrong, a panic is why.
func diagnose(f facts) *Error {
	e := diagnoseGuest(f)
	if e == nil || f.kvmDoubt == "" || f.out.Hello != nil || f.cause != nil && errors.Is(f.cause.Err, context.Canceled) {
		return e
	}
	// Whatever it looked like, it is the machine's doing and not the guest's.
	doubted := *e
	doubted.Class = Setup
	doubted.Msg = fmt.Sprintf("the guest did not boot under KVM; use --accel tcg: %s (%s)", e.Msg, f.kvmDoubt)
	return &doubted
}

func diagnoseGuest(f facts) *Error {
	if f.cause != nil && f.cause.Class == Setup {
		return f.cause
	}
	if msg := crashText(f.findings); msg != "" {
		return &Error{Class: Crash, Msg: msg}
	}
	if f.cause != nil {
		e := *f.cause
		e.Msg += symptoms(f)
		return &e
	}
	if b := f.out.Bye; b != nil {
		return byeError(f)
	}
	return endError(f)
}

// byeError is for a guest that ended in good order.
func byeError(f facts) *Error {
	b := f.out.Bye
	switch {
	case b.Status != vsock.StatusDone:
		text := oneLine(b.Text)
		if text == "" {
			text = oneLine(f.out.Fatal)
		}
		return &Error{Class: byeClass(b.Status), Msg: "the guest gave up: " + text}
	case !f.out.ReportComplete:
		return &Error{Class: Crash, Msg: "the guest says it is done and sent no whole report"}
	case f.reportErr != nil:
		return &Error{Class: Crash, Msg: "the guest's report is no use", Err: f.reportErr}
	}
	return nil
}

func byeClass(status int) Class {
	switch status {
	case vsock.StatusSpec:
		return Usage
	case vsock.StatusTimeout:
		return Timeout
	case vsock.StatusSetup:
		return Setup
	}
	return Crash
}

// endError is for a guest whose link or machine ended without a bye.
func endError(f facts) *Error {
	broke := errors.Is(f.serveErr, vsock.ErrCorrupt) || errors.Is(f.serveErr, vsock.ErrProtocol) ||
		errors.Is(f.serveErr, vsock.ErrTooLarge) || errors.Is(f.serveErr, vsock.ErrFlood)
	switch {
	case broke:
		return &Error{Class: Crash, Msg: "the guest broke the host link", Err: f.serveErr}
	case f.exit.Signal != 0 && !f.killed:
		return &Error{Class: Setup, Msg: "QEMU " + signalText(f.exit)}
	case f.exit.Code > 0:
		return &Error{Class: Setup, Msg: fmt.Sprintf("QEMU ended with status %d%s", f.exit.Code, lastWords(f.exit))}
	case f.out.Fatal != "":
		return &Error{Class: Crash, Msg: "the guest gave up: " + oneLine(f.out.Fatal)}
	case initFatal(f.findings) != nil:
		return initFatal(f.findings)
	case f.killed:
		return &Error{Class: Crash, Msg: "the guest closed the host link without saying that it is done" + symptoms(f), Err: f.serveErr}
	case f.exit.Shutdown == "guest-reset":
		return &Error{Class: Crash, Msg: "the guest reset itself without saying why" + symptoms(f)}
	}
	return &Error{Class: Crash, Msg: "the guest powered off without saying that it is done" + symptoms(f)}
}

// initFatal is for a guest that had no host link to say why it ended: what stands
// on its console, or nil.
func initFatal(findings []qemu.Finding) *Error {
	var e *Error
	for _, x := range findings {
		switch x.Kind {
		case qemu.InitFatal:
			_, text, _ := strings.Cut(x.Line, "fatal: ")
			e = &Error{Class: Crash, Msg: "the guest gave up: " + text}
		case qemu.InitDone:
			_, word, _ := strings.Cut(x.Line, "status=")
			if status, err := strconv.Atoi(word); err == nil && e != nil {
				e.Class = byeClass(status)
			}
		}
	}
	return e
}

// signalText says which signal ended QEMU, and who may have sent it: abort and
// faults are QEMU's own doing.
func signalText(exit qemu.Exit) string {
	name := unix.SignalName(exit.Signal)
	switch exit.Signal {
	case unix.SIGKILL:
		return "was killed by SIGKILL, not by guestinit; by hand, or for want of memory on the host?" + lastWords(exit)
	case unix.SIGABRT, unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGTRAP, unix.SIGSYS:
		return "crashed with " + name + lastWords(exit)
	}
	return "was killed by " + name + ", not by guestinit" + lastWords(exit)
}

// lastWords is the end of what QEMU itself said, behind a colon.
func lastWords(exit qemu.Exit) string {
	s := lastLines([]byte(exit.Stderr), 3)
	if len(s) == 0 {
		return ""
	}
	return ": " + oneLine(strings.Join(s, "\n"))
}

// crashText says what the kernel died of, or "" if it did not: its first oops,
// its panic, and what is behind the panics that have a cause elsewhere.
func crashText(findings []qemu.Finding) string {
	var oops, panicked, exec, program *qemu.Finding
	for i := range findings {
		f := &findings[i]
		switch {
		case f.Kind == qemu.Oops && oops == nil:
			oops = f
		case f.Kind.Ends() && panicked == nil:
			panicked = f
		case (f.Kind == qemu.ExecFailed || f.Kind == qemu.UnpackFailed) && exec == nil:
			exec = f
		case f.Kind == qemu.ProgramPanic && panicked == nil:
			program = f // the last one before the kernel's
		}
	}
	switch {
	case panicked == nil && oops == nil:
		return ""
	case panicked == nil:
		return "the guest's kernel oopsed: " + oops.Line
	case panicked.Kind == qemu.NoInit && exec != nil:
		return fmt.Sprintf("the kernel could not run /init; the image is truncated, damaged or for another machine: %s; %s", exec.Line, panicked.Line)
	case panicked.Kind == qemu.NoInit:
		return "the kernel found no /init; the image is missing or damaged, or the command line names another: " + panicked.Line
	case panicked.Kind == qemu.InitKilled && program != nil:
		return fmt.Sprintf("PID 1 ended%s: %s; %s", exitCode(panicked.Line), program.Line, panicked.Line)
	case panicked.Kind == qemu.InitKilled:
		return "PID 1 ended" + exitCode(panicked.Line) + ": " + panicked.Line
	case oops != nil:
		return fmt.Sprintf("the guest's kernel panicked: %s; %s", oops.Line, panicked.Line)
	}
	return "the guest's kernel panicked: " + panicked.Line
}

// exitCode reads "exitcode=0x00000300", a wait status, off the panic line.
func exitCode(line string) string {
	_, hex, ok := strings.Cut(line, "exitcode=0x")
	if !ok {
		return ""
	}
	hex, _, _ = strings.Cut(hex, " ")
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		return ""
	}
	ws := unix.WaitStatus(n)
	if sig := ws.Signal(); ws.Signaled() {
		return " by " + unix.SignalName(sig)
	}
	return fmt.Sprintf(" with status %d", ws.ExitStatus())
}

// symptoms adds what the console says that may be behind a stall.
func symptoms(f facts) string {
	var b strings.Builder
	seen := 0
	for _, x := range f.findings {
		switch x.Kind {
		case qemu.HungTask, qemu.SoftLockup, qemu.HardLockup, qemu.RCUStall, qemu.OutOfMemory, qemu.UnpackFailed, qemu.ExecFailed, qemu.SchedExt:
			if seen++; seen <= 3 {
				b.WriteString("; " + x.Line)
			}
		}
	}
	if seen == 0 && f.lastLine != "" {
		return fmt.Sprintf("; last console line: %q", f.lastLine)
	}
	return b.String()
}

// consoleNotes are the findings that do not fail a run but belong in its report.
func consoleNotes(findings []qemu.Finding) []string {
	var notes []string
	for _, x := range findings {
		switch x.Kind {
		case qemu.HungTask, qemu.SoftLockup, qemu.HardLockup, qemu.RCUStall, qemu.OutOfMemory, qemu.Warning:
			if len(notes) < 20 {
				notes = append(notes, "guest console: "+x.Line)
			}
		}
	}
	return notes
}
