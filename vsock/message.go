package vsock

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Protocol is the version of the conversation. The host refuses a guest that
// speaks another one.
const Protocol = 1

// Limits of the messages.
const (
	MaxMessage = 64 << 10 // bytes of a hello, event or bye on the wire
	MaxText    = 8 << 10  // bytes of a text in a message; encoders cut longer ones
	MaxGroups  = 1024     // groups in an Event
	// MaxCounters is how many counters an Event has at most.
	MaxCounters = 64
)

// Hello opens the conversation.
type Hello struct {
	Version       string             `cbor:"version"`        // of guestinit in the guest
	Protocol      int                `cbor:"protocol"`       // set by Guest.Hello
	KernelRelease string             `cbor:"kernel_release"` // uname -r
	Machine       string             `cbor:"machine"`        // uname -m
	NeedSpec      bool               `cbor:"need_spec"`      // the host is to send the spec now
	BootMs        map[string]float64 `cbor:"boot_ms"`
}

// The kinds of Event. A receiver ignores kinds it does not know.
const (
	EventLog      = "log"      // Text is a line for people
	EventPhase    = "phase"    // Phase begins or ends, as Text says
	EventStep     = "step"     // what happens in Step, as Text says
	EventProgress = "progress" // Groups holds counters
	EventFatal    = "fatal"    // Text says why the run cannot go on; a bye follows
)

// Event is something that happened in the guest.
type Event struct {
	Kind   string          `cbor:"kind"`
	Text   string          `cbor:"text"`
	AtNs   int64           `cbor:"at_ns"` // CLOCK_BOOTTIME of the guest
	Groups []GroupProgress `cbor:"groups,omitempty"`

	// What it is about; zero for the whole run.
	Group    string            `cbor:"group,omitempty"`    // name
	Phase    string            `cbor:"phase,omitempty"`    // name
	Step     int               `cbor:"step,omitempty"`     // from 1
	Counters map[string]uint64 `cbor:"counters,omitempty"` // at most MaxCounters
}

// GroupProgress is how far one group has come.
type GroupProgress struct {
	Index      int    `cbor:"index"`
	Alive      int    `cbor:"alive"`      // workers that run
	Iterations uint64 `cbor:"iterations"` // sum over the workers, since Start
}

// The statuses of a Bye. They are those of the guestinit command where both
// have a word for it.
const (
	StatusDone    = 0 // the report is complete; the verdict stands in it
	StatusSpec    = 2 // the spec was missing or refused
	StatusCrash   = 3 // guestinit itself broke down in the guest
	StatusTimeout = 4 // the run did not end within its deadline
	StatusSetup   = 5 // the guest could not be set up for the run
)

// Bye ends the conversation.
type Bye struct {
	Status int    `cbor:"status"`
	Text   string `cbor:"text"` // the cause, when Status is not StatusDone
}

// decodeMode limits what an untrusted message may be. It is built on first use,
// to keep it out of the guest's start-up.
var decodeMode = sync.OnceValues(func() (cbor.DecMode, error) {
	return cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: MaxGroups,
		MaxMapPairs:      MaxCounters,
	}.DecMode()
})

// decode reads a message of an untrusted peer into m.
func decode(f Frame, m any) error {
	if f.Flags&FlagMore != 0 {
		return fmt.Errorf("decode %v: chunked: %w", f.Type, ErrProtocol)
	}
	if len(f.Payload) > MaxMessage {
		return fmt.Errorf("decode %v: %d bytes, limit %d: %w", f.Type, len(f.Payload), MaxMessage, ErrTooLarge)
	}
	mode, err := decodeMode()
	if err != nil {
		return fmt.Errorf("decode %v: %w", f.Type, err)
	}
	if err := mode.Unmarshal(f.Payload, m); err != nil {
		return fmt.Errorf("decode %v: %w: %w", f.Type, ErrCorrupt, err)
	}
	return nil
}

// clip makes a text fit into a message: valid UTF-8 of at most MaxText bytes.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxText {
		return s
	}
	const mark = "…"
	n := MaxText - len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}
