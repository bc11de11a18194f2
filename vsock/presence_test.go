package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// A guest notices each way in which a host can leave.
func TestHostLeaves(t *testing.T) {
	bye, err := encode(TypeBye, Bye{Text: "not today"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		sent []byte // by the host, which then closes
		hold bool   // or does not
		want error
	}{
		{"closes", nil, false, ErrTorn},
		{"closes after a beat", appendFrame(nil, TypeBeat, 0, nil), false, ErrTorn},
		{"falls silent", appendFrame(nil, TypeBeat, 0, nil), true, ErrSilent},
		{"refuses", appendFrame(nil, TypeBye, 0, bye), true, ErrRefused},
		{"talks nonsense", []byte(strings.Repeat("nonsense", 4)), true, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			defer ours.Close()
			g := NewGuest(ours)
			g.beat = 20 * time.Millisecond
			lost := g.Watch()
			go func() {
				theirs.Write(tt.sent)
				if !tt.hold {
					theirs.Close()
				}
			}()
			<-lost
			if err := g.Err(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := g.Event(Event{Kind: EventLog}); err == nil {
				t.Error("an event after it is no error")
			}
			if err := g.Bye(Bye{}); err == nil {
				t.Error("a bye after it is no error")
			}
		})
	}
}

// A host that never beat may be silent for as long as it likes.
func TestHostWithoutBeats(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	g := NewGuest(ours)
	g.beat = time.Millisecond
	select {
	case <-g.Watch():
		t.Error(g.Err())
	case <-time.After(50 * time.Millisecond):
	}
}

// A host that takes nothing stops nobody: events are kept, then dropped, and
// their number is told when it reads on.
func TestSlowHost(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	g := NewGuest(ours)
	const extra = 10
	for i := range maxWaiting + extra {
		if err := g.Event(Event{Kind: EventLog, Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		if err := g.Event(Event{Kind: EventProgress, AtNs: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.events.waiting); n > maxWaiting {
		t.Fatalf("%d events wait", n)
	}
	var logs, told int
	r := NewReader(theirs)
	done := make(chan error, 1)
	go func() { done <- g.Bye(Bye{}) }()
	for {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == TypeBye {
			break
		}
		var e Event
		if err := decode(f, &e); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(e.Text, "are lost") {
			told++
		} else if e.Kind == EventLog {
			logs++
		}
	}
	theirs.Close()
	if err := <-done; !errors.Is(err, ErrNoBye) && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if told != 1 || logs < maxWaiting || logs > maxWaiting+1 {
		t.Errorf("%d events came, the loss was told %d times", logs, told)
	}
}

// Serve beats until the conversation ends, and a guest that watches ends it in
// good order.
func TestBeats(t *testing.T) {
	beats := make(chan struct{}, 100)
	out, err := serve(t, HostHandler{Beat: time.Millisecond}, func(c net.Conn) {
		g := NewGuest(c)
		g.beat = 10 * time.Second
		if err := g.Hello(Hello{}); err != nil {
			t.Error(err)
		}
		r := NewReader(c)
		for range 3 {
			if f, err := r.ReadFrame(); err != nil || f.Type != TypeBeat {
				t.Errorf("%v, %v", f.Type, err)
			}
			beats <- struct{}{}
		}
		g.Watch()
		w := g.ReportWriter()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := g.Bye(Bye{}); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !out.Done() || len(beats) != 3 {
		t.Errorf("%+v, %v, %d beats", out, err, len(beats))
	}
}

// script is a stream whose reads bring chunks, or a deadline that passed, one
// after the other, and then nothing until it is closed.
type script struct {
	net.Conn
	chunks [][]byte // nil: the deadline has passed
	closed chan struct{}
}

func (s *script) SetReadDeadline(time.Time) error { return nil }

func (s *script) Read(p []byte) (int, error) {
	if len(s.chunks) == 0 {
		<-s.closed
		return 0, io.EOF
	}
	if s.chunks[0] == nil {
		s.chunks = s.chunks[1:]
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, s.chunks[0])
	if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
		s.chunks = s.chunks[1:]
	}
	return n, nil
}

// A guest that did not run itself for long finds what came meanwhile; silence
// after that is the host's.
func TestGuestDidNotRun(t *testing.T) {
	beat := appendFrame(nil, TypeBeat, 0, nil)
	for name, tt := range map[string]struct {
		chunks [][]byte
		want   error
	}{
		"a beat waited": {[][]byte{beat, nil, beat}, ErrTorn}, // it goes on, and notices the end
		"silence":       {[][]byte{beat, nil, nil}, ErrSilent},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{chunks: tt.chunks, closed: make(chan struct{})}
			g := NewGuest(s)
			lost := g.Watch()
			if tt.want == ErrTorn {
				close(s.closed)
			}
			<-lost
			if err := g.Err(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
