package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/vsock"
)

func TestMeter(t *testing.T) {
	m := NewMeter([]string{"a", "b"})
	first := m.Progress(time.Second, []vsock.GroupProgress{{Index: 0, Alive: 1, Iterations: 10}, {Index: 1, Alive: 2, Iterations: 100}})
	if want := []GroupProgress{{0, "a", 1, 10, 0}, {1, "b", 2, 100, 0}}; !reflect.DeepEqual(first, want) {
		t.Errorf("got %v, want %v", first, want)
	}
	// Groups that are none, more groups than there are, a counter that went back.
	second := m.Progress(3*time.Second, []vsock.GroupProgress{{Index: 1, Alive: -5, Iterations: 50}, {Index: 7}, {Index: -1}, {Index: 0, Alive: 1, Iterations: 110}, {Index: 0}})
	if want := []GroupProgress{{1, "b", 0, 50, 0}, {0, "a", 1, 110, 50}}; !reflect.DeepEqual(second, want) {
		t.Errorf("got %v, want %v", second, want)
	}
}

func TestGuestEvents(t *testing.T) {
	m := NewMeter([]string{"a"})
	for _, tt := range []struct {
		in   vsock.Event
		want Event
		ok   bool
	}{
		{vsock.Event{Kind: vsock.EventPhase, Phase: "warm\nup", AtNs: 5}, Event{Stage: StagePhase, Phase: "warm; up", GuestAtNs: 5}, true},
		{vsock.Event{Kind: vsock.EventStep, Step: 2, Group: "a", Text: "begins", Counters: map[string]uint64{"ops": 1}},
			Event{Stage: StageStep, Step: 2, Group: "a", Text: "begins", Counters: map[string]uint64{"ops": 1}}, true},
		{vsock.Event{Kind: vsock.EventStep, Step: -2}, Event{Stage: StageStep}, true},
		{vsock.Event{Kind: "from the future"}, Event{}, false},
	} {
		if got, ok := m.guestEvent(tt.in); ok != tt.ok || ok && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: got %+v, %v, want %+v", tt.in, got, ok, tt.want)
		}
	}
}

func TestLiveLines(t *testing.T) {
	var terminal, plain bytes.Buffer
	onTerminal, plainly := NewProgress(&terminal, 50), NewProgress(&plain, 0)
	show := func(e Event) {
		onTerminal(e)
		plainly(e)
	}
	var groups []GroupProgress
	for i := range 40 {
		groups = append(groups, GroupProgress{Index: i, Name: fmt.Sprintf("group %d", i), Alive: 1, Iterations: 5})
	}
	for i := range 25 {
		show(Event{Stage: StageProgress, At: time.Duration(i+1) * time.Second, Groups: groups})
	}
	show(Event{Stage: StageStep, At: 30 * time.Second, Step: 2, Phase: "load", Text: "begins"})
	for line := range strings.Lines(terminal.String()) {
		if n := len([]rune(strings.TrimPrefix(line, "\x1b[16A\r\x1b[J"))); n > 50 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if s := terminal.String(); strings.Count(s, "\x1b[16A\r\x1b[J") != 25 || !strings.Contains(s, "25 more groups") ||
		!strings.HasSuffix(s, "[ 30.00s] step: step 2: load: begins\n") {
		t.Errorf("%q", s)
	}
	if s := plain.String(); strings.Count(s, "progress: 40 workers alive; iterations: group 0 5, ") != 3 || !strings.Contains(s, ", 32 more groups\n") {
		t.Errorf("%q", s)
	}
}

// stuck is a writer that waits until it is let go.
type stuck struct{ let chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.let
	return len(p), nil
}

func TestPump(t *testing.T) {
	var out bytes.Buffer
	p := NewPump(&out)
	for i := range 100 {
		fmt.Fprintln(p, i)
	}
	if err := p.Close(); err != nil || strings.Count(out.String(), "\n") != 100 {
		t.Errorf("%q, %v", out.String(), err)
	}
	slow := stuck{make(chan struct{})}
	p = NewPump(slow)
	for range pumpLines + 100 {
		fmt.Fprintln(p, "x")
	}
	close(slow.let)
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "lines are lost") {
		t.Errorf("a slow reader: %v", err)
	}
	r, w := io.Pipe()
	r.CloseWithError(io.ErrNoProgress)
	p = NewPump(w)
	fmt.Fprintln(p, "x")
	fmt.Fprintln(p, "y")
	if err := p.Close(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a broken writer: %v", err)
	}
}
