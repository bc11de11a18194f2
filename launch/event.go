package launch

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/guestinit/guestinit/vsock"
)

// Stage is what an Event is about.
type Stage string

// The stages of a run, in their order; some may be missing or come again.
const (
	StageKernel   Stage = "kernel"   // a kernel was chosen
	StageImage    Stage = "image"    // the image was built
	StageBoot     Stage = "boot"     // QEMU was started
	StageConsole  Stage = "console"  // the console said something that means something
	StageRetry    Stage = "retry"    // an attempt was given up for another
	StageHello    Stage = "hello"    // the guest is up
	StagePhase    Stage = "phase"    // the guest began a phase
	StageLog      Stage = "log"      // the guest says something
	StageProgress Stage = "progress" // counters of the guest
	StageReport   Stage = "report"   // the report is in
	StageKeep     Stage = "keep"     // the directory of a kept run
)

// Event is a step of a run, for whoever watches.
type Event struct {
	Stage  Stage
	At     time.Duration // since the run began
	Text   string        // one printable line
	Groups []vsock.GroupProgress
}

// NewProgress returns a function for Options.Progress that writes to w: a line
// per event, and on a terminal a status line that the counters update in place.
// Elsewhere counters are left out.
func NewProgress(w io.Writer, terminal bool) func(Event) {
	p := &progress{w: w, terminal: terminal}
	return p.event
}

type progress struct {
	w        io.Writer
	terminal bool
	status   bool // the cursor stands on a status line
}

func (p *progress) event(e Event) {
	if e.Stage == StageProgress {
		if p.terminal {
			p.status = true
			p.print("\r\x1b[K" + stamp(e) + counters(e.Groups))
		}
		return
	}
	clear := ""
	if p.status {
		clear, p.status = "\r\x1b[K", false
	}
	p.print(clear + stamp(e) + string(e.Stage) + ": " + e.Text + "\n")
	if p.terminal && e.Stage == StageReport {
		p.status = false
	}
}

// print ignores errors: a progress that cannot be shown must not end a run.
func (p *progress) print(s string) { _, _ = io.WriteString(p.w, s) }

func stamp(e Event) string { return fmt.Sprintf("[%6.2fs] ", e.At.Seconds()) }

// statusWidth keeps the status line on one line of a narrow terminal.
const statusWidth = 68

func counters(groups []vsock.GroupProgress) string {
	alive := 0
	parts := make([]string, 0, len(groups))
	for _, g := range groups {
		alive += g.Alive
		parts = append(parts, fmt.Sprintf("g%d %d", g.Index, g.Iterations))
	}
	s := fmt.Sprintf("%d workers: %s", alive, strings.Join(parts, " · "))
	if r := []rune(s); len(r) > statusWidth {
		s = string(r[:statusWidth-1]) + "…"
	}
	return s
}
