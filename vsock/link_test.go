package vsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// serve runs Serve on one end of a pipe and the guest function on the other.
func serve(t *testing.T, h HostHandler, guest func(net.Conn)) (Outcome, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		guest(theirs)
	}()
	out, err := Serve(t.Context(), ours, h)
	ours.Close()
	<-done
	return out, err
}

func TestConversation(t *testing.T) {
	spec := bytes.Repeat([]byte("spec "), 20_000)
	payload := bytes.Repeat([]byte("report "), 30_000)
	var report bytes.Buffer
	var hello Hello
	var events []Event
	h := HostHandler{
		OnHello: func(h Hello) { hello = h },
		Spec:    func() []byte { return spec },
		OnEvent: func(e Event) { events = append(events, e) },
		Report:  &report,
		Silence: time.Minute,
	}
	sent := []Event{
		{Kind: EventLog, Text: "line", AtNs: 1},
		{Kind: EventProgress, AtNs: 2, Groups: []GroupProgress{{Index: 1, Alive: 2, Iterations: 1 << 63}}},
	}
	var got []byte
	out, err := serve(t, h, func(c net.Conn) {
		g := NewGuest(c)
		check := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		check(g.Hello(Hello{Version: "v1", KernelRelease: "6.1", NeedSpec: true, BootMs: map[string]float64{"mounts": 1.5}}))
		var err error
		got, err = g.ReceiveSpec(len(spec))
		check(err)
		for _, e := range sent {
			check(g.Event(e))
		}
		w := g.ReportWriter()
		_, err = io.Copy(w, bytes.NewReader(payload))
		check(err)
		check(w.Close())
		check(g.Bye(Bye{Text: "all done"}))
		check(g.Bye(Bye{Status: StatusCrash}))
	})
	if err != nil || !out.Done() {
		t.Fatalf("outcome %+v, error %v", out, err)
	}
	if !bytes.Equal(got, spec) {
		t.Errorf("guest got %d bytes of spec, want %d", len(got), len(spec))
	}
	if !bytes.Equal(report.Bytes(), payload) || out.ReportBytes != int64(len(payload)) {
		t.Errorf("host got %d bytes of report, want %d", report.Len(), len(payload))
	}
	if !reflect.DeepEqual(events, sent) {
		t.Errorf("events %+v, want %+v", events, sent)
	}
	want := Hello{Version: "v1", Protocol: Protocol, KernelRelease: "6.1", NeedSpec: true, BootMs: map[string]float64{"mounts": 1.5}}
	if !reflect.DeepEqual(hello, want) {
		t.Errorf("hello %+v, want %+v", hello, want)
	}
	if out.Bye.Text != "all done" {
		t.Errorf("bye %+v", out.Bye)
	}
}

// frames joins raw frames of a guest that knows no rules.
func frames(t *testing.T, list ...any) []byte {
	t.Helper()
	var b []byte
	for _, m := range list {
		switch m := m.(type) {
		case Hello:
			b = appendFrame(b, TypeHello, 0, mustEncode(t, m))
		case Event:
			b = appendFrame(b, TypeEvent, 0, mustEncode(t, m))
		case Bye:
			b = appendFrame(b, TypeBye, 0, mustEncode(t, m))
		case Frame:
			b = appendFrame(b, m.Type, m.Flags, m.Payload)
		case string:
			b = append(b, m...)
		}
	}
	return b
}

func mustEncode(t *testing.T, m message) []byte {
	t.Helper()
	b, err := encode(0, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// After the answer to its bye a guest reads no more, and no beat waits for it.
func TestServeEndsWithItsGuest(t *testing.T) {
	h := HostHandler{Beat: time.Nanosecond}
	host, guest := net.Pipe()
	defer host.Close()
	defer guest.Close()
	served := make(chan error, 1)
	go func() {
		_, err := Serve(t.Context(), host, h)
		served <- err
	}()
	g := NewGuest(guest)
	if err := g.Hello(Hello{}); err != nil {
		t.Fatal(err)
	}
	if err := g.Bye(Bye{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the host waits for a guest that has its answer")
	}
}

func TestServeBadGuests(t *testing.T) {
	hello := Hello{Protocol: Protocol}
	report := Frame{TypeReport, FlagMore, []byte("0123456789")}
	last := Frame{TypeReport, 0, []byte("x")}
	event := Event{Kind: EventLog, Text: "line"}
	tests := []struct {
		name   string
		in     []any
		want   error
		report string
		events int
	}{
		{"nothing", nil, ErrNoBye, "", 0},
		{"no hello", []any{event}, ErrProtocol, "", 0},
		{"two hellos", []any{hello, hello}, ErrProtocol, "", 0},
		{"other protocol", []any{Hello{Protocol: Protocol + 1}}, ErrProtocol, "", 0},
		{"asks for a spec nobody has", []any{Hello{Protocol: Protocol, NeedSpec: true}}, ErrProtocol, "", 0},
		{"garbage", []any{strings.Repeat("guestinit ", 10)}, ErrCorrupt, "", 0},
		{"garbage after hello", []any{hello, event, strings.Repeat("guestinit ", 10)}, ErrCorrupt, "", 1},
		{"not CBOR", []any{hello, Frame{TypeEvent, 0, []byte("\xff\xff")}}, ErrCorrupt, "", 1},
		{"CBOR bomb", []any{hello, Frame{TypeEvent, 0, []byte("\xa1\x66groups\x9b\x7f\xff\xff\xff\xff\xff\xff\xff")}}, ErrCorrupt, "", 1},
		{"chunked event", []any{hello, Frame{TypeEvent, FlagMore, nil}}, ErrProtocol, "", 1},
		{"event too long", []any{hello, Frame{TypeEvent, 0, make([]byte, MaxMessage+1)}}, ErrTooLarge, "", 1},
		{"spec from the guest", []any{hello, Frame{TypeSpec, 0, nil}}, ErrProtocol, "", 0},
		{"stops in the report", []any{hello, report, report}, ErrTorn, "01234567890123456789", 0},
		{"stops in a frame", []any{hello, report, "GiT1"}, ErrTorn, "0123456789", 0},
		{"report after its end", []any{hello, last, last}, ErrProtocol, "x", 0},
		{"stops before bye", []any{hello, event, last}, ErrNoBye, "x", 1},
		{"flood of events", []any{hello, event, event, event, event}, ErrFlood, "", 4},
		{"flood of report", []any{hello, report, report, report, report}, ErrFlood, "012345678901234567890123456789", 0},
		{"flood of unknown frames", []any{hello, Frame{77, 0, nil}, Frame{78, 0, nil}, Frame{79, 0, nil}}, ErrFlood, "", 0},
		{"unknown frame that must be known", []any{hello, Frame{77, FlagMust, nil}}, ErrProtocol, "", 0},
		{"unknown frames skipped", []any{Frame{77, 0, nil}, hello, Frame{78, 0, nil}, last, Bye{Status: 9}}, nil, "x", 0},
		{"ends with a failure", []any{hello, Event{Kind: EventFatal, Text: "why"}, Bye{Status: StatusSetup, Text: "why"}}, nil, "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sink bytes.Buffer
			h := HostHandler{Report: &sink, Limits: HostLimits{Events: 3, ReportBytes: 30, Skipped: 2}}
			out, err := serve(t, h, func(c net.Conn) {
				go io.Copy(io.Discard, c)
				c.Write(frames(t, tt.in...))
			})
			if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if sink.String() != tt.report {
				t.Errorf("report %q, want %q", sink.String(), tt.report)
			}
			if out.Events != tt.events {
				t.Errorf("%d events, want %d", out.Events, tt.events)
			}
			if out.Done() {
				t.Error("a guest that failed counts as done")
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
		})
	}
}

func TestServeStops(t *testing.T) {
	t.Run("silence", func(t *testing.T) {
		_, err := serve(t, HostHandler{Silence: 20 * time.Millisecond}, func(c net.Conn) {
			c.Write(frames(t, Hello{Protocol: Protocol}))
			io.Copy(io.Discard, c)
		})
		if !errors.Is(err, ErrSilent) {
			t.Errorf("got %v, want %v", err, ErrSilent)
		}
	})
	t.Run("guest that does not read its spec", func(t *testing.T) {
		hung := make(chan struct{})
		h := HostHandler{Silence: 20 * time.Millisecond, Spec: func() []byte { return make([]byte, 1<<20) }}
		ours, theirs := net.Pipe()
		go func() {
			defer close(hung)
			theirs.Write(frames(t, Hello{Protocol: Protocol, NeedSpec: true}))
		}()
		_, err := Serve(t.Context(), ours, h)
		<-hung
		theirs.Close()
		if !errors.Is(err, ErrSilent) {
			t.Errorf("got %v, want %v", err, ErrSilent)
		}
	})
	t.Run("context", func(t *testing.T) {
		cause := errors.New("QEMU is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go cancel(cause)
		if _, err := Serve(ctx, ours, HostHandler{}); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
	})
	t.Run("report writer", func(t *testing.T) {
		out, err := serve(t, HostHandler{Report: brokenStream{}}, func(c net.Conn) {
			go io.Copy(io.Discard, c)
			c.Write(frames(t, Hello{Protocol: Protocol}, Frame{TypeReport, FlagMore, nil}, Frame{TypeReport, 0, nil}, Bye{}))
		})
		if err != nil || !errors.Is(out.ReportErr, io.ErrShortWrite) || !out.ReportComplete {
			t.Errorf("outcome %+v, error %v", out, err)
		}
	})
}

func TestReceiveSpecErrors(t *testing.T) {
	refuse := func(text string) []byte { return appendFrame(nil, TypeBye, 0, mustEncode(t, Bye{Text: text})) }
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"host goes away", nil, ErrTorn},
		{"host goes away between chunks", appendFrame(nil, TypeSpec, FlagMore, []byte("x")), ErrTorn},
		{"host refuses", refuse("no"), ErrRefused},
		{"too long", appendFrame(nil, TypeSpec, 0, make([]byte, 101)), ErrTooLarge},
		{"too long in chunks", appendFrame(appendFrame(nil, TypeSpec, FlagMore, make([]byte, 60)), TypeSpec, 0, make([]byte, 60)), ErrTooLarge},
		{"unknown frame that must be known", appendFrame(nil, 77, FlagMust, nil), ErrProtocol},
		{"corrupt", bytes.Repeat([]byte("x"), 100), ErrCorrupt},
		{"good after an unknown frame", appendFrame(appendFrame(nil, 77, 0, nil), TypeSpec, 0, make([]byte, 100)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				theirs.Write(tt.in)
				theirs.Close()
			}()
			g := NewGuest(ours)
			spec, err := g.ReceiveSpec(100)
			if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err == nil && len(spec) != 100 {
				t.Errorf("got %d bytes", len(spec))
			}
			if errors.Is(err, ErrRefused) || errors.Is(err, ErrTorn) {
				if err := g.Event(Event{}); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "has left") {
					t.Errorf("event to a host that is gone: %v", err)
				}
			}
			ours.Close()
		})
	}
}

// noDeadline hides the deadlines of a pipe.
type noDeadline struct{ io.ReadWriteCloser }

func TestGuestNeverWaitsForever(t *testing.T) {
	for _, bare := range []bool{false, true} {
		ours, theirs := net.Pipe()
		var stream io.ReadWriteCloser = ours
		if bare {
			stream = noDeadline{ours}
		}
		g := NewGuest(stream)
		g.SetTimeout(20 * time.Millisecond)
		if _, err := g.ReceiveSpec(1); !errors.Is(err, ErrSilent) {
			t.Errorf("spec, bare %v: got %v, want %v", bare, err, ErrSilent)
		}
		if err := g.Event(Event{Kind: EventLog}); err != nil {
			t.Errorf("event, bare %v: %v", bare, err)
		}
		<-g.lost
		if err := g.Err(); !bare && !errors.Is(err, ErrSilent) {
			t.Errorf("event: got %v, want %v", err, ErrSilent)
		}
		if again := g.Event(Event{Kind: EventLog}); again == nil {
			t.Errorf("second event, bare %v: no error", bare)
		}
		theirs.Close()
		g.Close()
	}
}

func TestClip(t *testing.T) {
	long := strings.Repeat("ä", MaxText)
	for _, in := range []string{"", "short", "bad \xff byte", long, "x" + long, strings.Repeat("\xff", MaxText)} {
		got := clip(in)
		if len(got) > MaxText || !utf8.ValidString(got) {
			t.Errorf("clip of %d bytes: %d bytes, valid %v", len(in), len(got), utf8.ValidString(got))
		}
		if utf8.ValidString(in) && len(in) <= MaxText && got != in {
			t.Errorf("clip(%q) = %q", in, got)
		}
		if len(in) > MaxText && len(got) < MaxText-8 {
			t.Errorf("clip of %d bytes left only %d", len(in), len(got))
		}
	}
}

func FuzzServe(f *testing.F) {
	hello := appendFrame(nil, TypeHello, FlagMust, []byte("\xa2\x68protocol\x01\x69need_spec\xf5"))
	f.Add([]byte{})
	f.Add(hello)
	f.Add(appendFrame(bytes.Clone(hello), TypeEvent, 0, []byte("\xa1\x64kind\x65fatal")))
	f.Add(appendFrame(appendFrame(bytes.Clone(hello), TypeReport, 0, []byte("data")), TypeBye, 0, []byte("\xa1\x66status\x00")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var sink bytes.Buffer
		h := HostHandler{
			Spec:   func() []byte { return []byte("{}") },
			Report: &sink,
			Limits: HostLimits{Events: 10, ReportBytes: 100, Skipped: 10},
		}
		out, err := Serve(t.Context(), &scripted{in: bytes.NewReader(in)}, h)
		classes := []error{ErrTorn, ErrCorrupt, ErrTooLarge, ErrProtocol, ErrFlood, ErrNoBye}
		if err != nil && !matchesOne(err, classes) {
			t.Fatalf("not exactly one class in %v", err)
		}
		if (err == nil) != (out.Bye != nil) {
			t.Fatalf("error %v with outcome %+v", err, out)
		}
		if sink.Len() > 100 || int64(sink.Len()) != out.ReportBytes {
			t.Fatalf("%d bytes of report taken, outcome says %d", sink.Len(), out.ReportBytes)
		}
	})
}

func matchesOne(err error, classes []error) bool {
	n := 0
	for _, c := range classes {
		if errors.Is(err, c) {
			n++
		}
	}
	return n == 1
}

// scripted is a peer whose words are written before and who hears nothing.
type scripted struct{ in io.Reader }

func (s *scripted) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { return nil }
