package launch

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
)

// Class is what kind of end a run came to without a whole report. Its value is
// the exit status of the command.
type Class int

// The classes.
const (
	Usage   Class = 2 // the options or the spec are wrong
	Crash   Class = 3 // the guest crashed: panic, oops, PID 1 ended or talked nonsense
	Timeout Class = 4 // a deadline passed
	Setup   Class = 5 // it could not be run: no kernel, no QEMU, QEMU ended, interrupted
)

// String returns the class in a few words.
func (c Class) String() string {
	switch c {
	case Usage:
		return "bad usage"
	case Crash:
		return "guest crashed"
	case Timeout:
		return "timeout"
	case Setup:
		return "could not run"
	}
	return fmt.Sprintf("class %d", int(c))
}

// Exit statuses that are no class.
const (
	StatusPass         = 0 // also of a verdict of skip
	StatusFail         = 1
	StatusInconclusive = 6 // a check could not be judged; none failed
)

// Error is the end of a run that has no whole report, or one from a guest that
// crashed.
type Error struct {
	Class   Class
	Msg     string // one line that names the cause
	Err     error  // underlying, or nil
	Console []byte // the end of the guest's console, where one ran
	Command string // QEMU's command line, where it got that far
	Dir     string // of a kept run, with a script to boot it by hand
}

// Error returns one line: the class and the cause.
func (e *Error) Error() string {
	s := e.Class.String() + ": " + e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// detailLines is how much of the console Details shows.
const detailLines = 25

// Details returns what helps to find the cause, for people: the last lines of
// the console and QEMU's command line. It is empty or ends in a newline.
func (e *Error) Details() string {
	var b strings.Builder
	if lines := lastLines(e.Console, detailLines); len(lines) > 0 {
		fmt.Fprintf(&b, "last lines of the guest's console:\n")
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	if e.Command != "" {
		fmt.Fprintf(&b, "QEMU ran as:\n  %s\n", e.Command)
	}
	switch {
	case e.Dir != "":
		fmt.Fprintf(&b, "to boot it by hand: sh %s\n", qemu.Quote(filepath.Join(e.Dir, keepCommand)))
	case e.Command != "":
		fmt.Fprintf(&b, "the image was in memory only; --keep leaves it with a script to boot it by hand\n")
	}
	return b.String()
}

// lastLines returns the last n lines that hold anything, made printable.
func lastLines(console []byte, n int) []string {
	var lines []string
	for line := range strings.Lines(Printable(string(console))) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// Printable replaces what a terminal would obey, control characters, escape
// sequences and invalid UTF-8, but keeps the lines. What a guest says goes
// through it.
func Printable(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// lineMax is how much of a guest's text stands in one line of ours.
const lineMax = 1000

// oneLine is Printable for what must be one line.
func oneLine(s string) string {
	var parts []string
	for line := range strings.Lines(Printable(s)) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	s = strings.Join(parts, "; ")
	if r := []rune(s); len(r) > lineMax {
		s = string(r[:lineMax]) + "…"
	}
	return s
}

// ExitStatus returns the exit status of the command for the end of a run: that
// of err's class (Setup if it has none), else what the report's verdict says.
func ExitStatus(err error, r *report.Report) int {
	var e *Error
	switch {
	case errors.As(err, &e):
		return int(e.Class)
	case err != nil:
		return int(Setup)
	case r == nil || r.Verdict == report.Pass || r.Verdict == report.Skip:
		return StatusPass
	case r.Verdict == report.Inconclusive:
		return StatusInconclusive
	}
	return StatusFail
}

// wrap puts err into a class, unless it has one.
func wrap(c Class, msg string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Class: c, Msg: msg, Err: err}
}
