package launch

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/guestinit/guestinit/report"
)

// NewProgress returns a function for Options.Progress that writes to w: a line
// per event, and on a terminal of so many columns a line per group below them
// that the counters update in place. Elsewhere, width 0, counters are a line
// every plainEvery.
func NewProgress(w io.Writer, width int) func(Event) {
	p := &progress{w: w, width: width}
	return p.event
}

const (
	// plainEvery is how often counters are a line where there is no terminal.
	plainEvery = 10 * time.Second
	// maxLive is how many groups have a line on a terminal.
	maxLive = 16
)

type progress struct {
	w     io.Writer
	width int // of the terminal; 0 if it is none
	live  int // lines below which the cursor stands, to be overwritten
	plain time.Duration
}

func (p *progress) event(e Event) {
	var b strings.Builder
	switch {
	case e.Stage == StageProgress && p.width > 0:
		p.rewind(&b)
		p.liveLines(&b, e)
	case e.Stage == StageProgress:
		if p.plain > 0 && e.At < p.plain+plainEvery {
			return
		}
		p.plain = e.At
		b.WriteString(stamp(e) + "progress: " + counters(e.Groups) + "\n")
	default:
		p.rewind(&b)
		b.WriteString(stamp(e) + string(e.Stage) + ": " + eventText(e) + "\n")
	}
	_, _ = io.WriteString(p.w, b.String()) // a progress that cannot be shown must not end a run
}

// rewind takes the live lines back.
func (p *progress) rewind(b *strings.Builder) {
	if p.live > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r\x1b[J", p.live)
		p.live = 0
	}
}

// liveLines writes a line for each group.
func (p *progress) liveLines(b *strings.Builder, e Event) {
	names := 5
	for _, g := range e.Groups[:min(len(e.Groups), maxLive)] {
		names = max(names, min(utf8.RuneCountInString(g.Name), 24))
	}
	for i, g := range e.Groups {
		line := fmt.Sprintf("%s  %-*s %4d alive %14d iterations %12.0f/s", stamp(e), names, clipTo(g.Name, names), g.Alive, g.Iterations, g.IterationsPerS)
		if i == maxLive-1 && len(e.Groups) > maxLive {
			line = fmt.Sprintf("%s  %d more groups", stamp(e), len(e.Groups)-i)
		}
		b.WriteString(clipTo(line, p.width-1) + "\n")
		if p.live++; p.live == maxLive {
			return
		}
	}
}

// clipTo cuts a text to so many characters.
func clipTo(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:max(0, n-1)]) + "…"
	}
	return s
}

func stamp(e Event) string { return fmt.Sprintf("[%6.2fs] ", e.At.Seconds()) }

// eventText is the line of an event: where it belongs, and what it says.
func eventText(e Event) string {
	var parts []string
	if e.Step > 0 {
		parts = append(parts, fmt.Sprintf("step %d", e.Step))
	}
	for _, s := range []string{e.Phase, e.Group, e.Text} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// plainGroups is how many groups stand on a plain line.
const plainGroups = 8

func counters(groups []GroupProgress) string {
	alive := 0
	var parts []string
	for i, g := range groups {
		alive += g.Alive
		if i < plainGroups {
			parts = append(parts, fmt.Sprintf("%s %d", g.Name, g.Iterations))
		}
	}
	if n := len(groups) - plainGroups; n > 0 {
		parts = append(parts, report.Plural(n, "more group"))
	}
	return fmt.Sprintf("%s alive; iterations: %s", report.Plural(alive, "worker"), strings.Join(parts, ", "))
}

// NewEventLog returns a function for Options.Progress that writes every event to
// w as one line of JSON.
func NewEventLog(w io.Writer) func(Event) {
	return func(e Event) {
		line, err := json.Marshal(e)
		if err != nil {
			return // no field of an event can fail
		}
		_, _ = w.Write(append(line, '\n')) // whoever reads it is told by its end
	}
}
