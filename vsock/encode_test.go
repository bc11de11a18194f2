package vsock

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// TestEncodeLikeLibrary decodes both encodings of messages with all fields into
// generic values: a field that encode forgets or misnames differs.
func TestEncodeLikeLibrary(t *testing.T) {
	many := Event{Groups: make([]GroupProgress, MaxGroups), Text: strings.Repeat("x", MaxText)}
	for i := range many.Groups {
		many.Groups[i] = GroupProgress{math.MaxInt32, math.MaxInt32, math.MaxUint64}
	}
	tests := []message{
		Hello{Version: "v", Protocol: 1, KernelRelease: "6.1", Machine: "x86_64", NeedSpec: true,
			BootMs: map[string]float64{"a": 1.5, "b": -0.25, "": math.MaxFloat64}},
		Hello{BootMs: map[string]float64{}},
		Event{Kind: EventProgress, Text: strings.Repeat("ä", 200), AtNs: math.MaxInt64,
			Groups: []GroupProgress{{0, 23, 24}, {255, 256, 65535}, {65536, -1, math.MaxUint32}, {-256, -257, math.MaxUint64}}},
		Event{AtNs: math.MinInt64, Groups: []GroupProgress{}},
		many,
		Event{Kind: EventStep, Text: "begins", AtNs: 1, Group: "g", Phase: "p", Step: 3, Counters: map[string]uint64{"ops": math.MaxUint64, "a": 0}},
		Bye{Status: 5, Text: "why"},
		Bye{Status: -1},
	}
	for _, m := range tests {
		ours, err := encode(0, m)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := cbor.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := cbor.Unmarshal(ours, &got); err != nil {
			t.Errorf("%.100v: %v", m, err)
		}
		if err := cbor.Unmarshal(theirs, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%.100v: encodes as\n%.300v, want\n%.300v", m, got, want)
		}
	}
}

func TestEncodeTooLarge(t *testing.T) {
	if _, err := encode(TypeBye, Bye{Text: strings.Repeat("x", MaxMessage)}); err == nil {
		t.Error("a message above the limit is encoded")
	}
}
