package launch

import (
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
		return &Error{Class: Setup, Msg: fmt.Sprintf("QEMU was killed by %s, not by guestinit; by hand, or for want of memory on the host?", unix.SignalName(f.exit.Signal))}
	case f.exit.Code > 0:
		msg := fmt.Sprintf("QEMU ended with status %d", f.exit.Code)
		if s := lastLines([]byte(f.exit.Stderr), 3); len(s) > 0 {
			msg += ": " + strings.Join(s, "; ")
		}
		return &Error{Class: Setup, Msg: msg}
	case f.out.Fatal != "":
		return &Error{Class: Crash, Msg: "the guest gave up: " + oneLine(f.out.Fatal)}
	case f.killed:
		return &Error{Class: Crash, Msg: "the guest closed the host link without saying that it is done" + symptoms(f), Err: f.serveErr}
	case f.exit.Shutdown == "guest-reset":
		return &Error{Class: Crash, Msg: "the guest reset itself without saying why" + symptoms(f)}
	}
	return &Error{Class: Crash, Msg: "the guest powered off without saying that it is done" + symptoms(f)}
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
		case qemu.HungTask, qemu.SoftLockup, qemu.HardLockup, qemu.RCUStall, qemu.OutOfMemory, qemu.UnpackFailed, qemu.ExecFailed:
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
