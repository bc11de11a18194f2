package launch

import (
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
	StagePhase    Stage = "phase"    // the guest begins or ends a phase
	StageStep     Stage = "step"     // something happens in a step: an operation, a program
	StageLog      Stage = "log"      // the guest says something
	StageProgress Stage = "progress" // counters of the guest
	StageReport   Stage = "report"   // the report is in
	StageKeep     Stage = "keep"     // the directory of a kept run
)

// Event is a step of a run, for whoever watches. Its JSON is a line of an event
// log; docs/events.md describes it.
type Event struct {
	Stage     Stage             `json:"kind"`
	At        time.Duration     `json:"at_ns"`                 // since the run began
	GuestAtNs int64             `json:"guest_at_ns,omitempty"` // CLOCK_BOOTTIME of the guest, of what it sent
	Text      string            `json:"text,omitempty"`        // one printable line
	Group     string            `json:"group,omitempty"`       // that it is about
	Phase     string            `json:"phase,omitempty"`       // that it is about
	Step      int               `json:"step,omitempty"`        // that it is about, from 1
	Counters  map[string]uint64 `json:"counters,omitempty"`
	Groups    []GroupProgress   `json:"groups,omitempty"` // of StageProgress
}

// GroupProgress is how far one group has come.
type GroupProgress struct {
	Index          int     `json:"index"`
	Name           string  `json:"name"`
	Alive          int     `json:"alive"`            // workers that run
	Iterations     uint64  `json:"iterations"`       // sum over the workers
	IterationsPerS float64 `json:"iterations_per_s"` // since the progress before; 0 in the first
}

// Meter makes progress of counters: it knows the groups and what they had
// before. It is not safe for concurrent use.
type Meter struct {
	names []string
	last  []vsock.GroupProgress
	at    time.Duration
}

// NewMeter returns a meter for groups of these names.
func NewMeter(names []string) *Meter {
	return &Meter{names: names, last: make([]vsock.GroupProgress, len(names))}
}

// Progress returns the progress that counters mean. at is when they were read,
// on any clock that goes on. Groups that are none are left out.
func (m *Meter) Progress(at time.Duration, counters []vsock.GroupProgress) []GroupProgress {
	seconds := (at - m.at).Seconds()
	groups := make([]GroupProgress, 0, len(m.names))
	for _, c := range counters {
		if c.Index < 0 || c.Index >= len(m.names) || len(groups) == len(m.names) {
			continue
		}
		g := GroupProgress{Index: c.Index, Name: m.names[c.Index], Alive: max(0, c.Alive), Iterations: c.Iterations}
		if last := m.last[c.Index].Iterations; m.at > 0 && seconds > 0 && c.Iterations >= last {
			g.IterationsPerS = float64(c.Iterations-last) / seconds
		}
		m.last[c.Index] = c
		groups = append(groups, g)
	}
	m.at = at
	return groups
}

// guestEvent is what an event of the guest means here. ok is false for a kind
// that nobody knows.
func (m *Meter) guestEvent(e vsock.Event) (out Event, ok bool) {
	out = Event{
		GuestAtNs: e.AtNs, Text: oneLine(e.Text),
		Group: oneLine(e.Group), Phase: oneLine(e.Phase), Step: max(0, e.Step),
	}
	for name, v := range e.Counters {
		if out.Counters == nil {
			out.Counters = make(map[string]uint64, len(e.Counters))
		}
		out.Counters[oneLine(name)] = v
	}
	switch e.Kind {
	case vsock.EventPhase:
		out.Stage = StagePhase
	case vsock.EventStep:
		out.Stage = StageStep
	case vsock.EventLog, vsock.EventFatal:
		out.Stage = StageLog
	case vsock.EventProgress:
		out.Stage, out.Groups = StageProgress, m.Progress(time.Duration(e.AtNs), e.Groups)
	default:
		return out, false
	}
	return out, true
}
