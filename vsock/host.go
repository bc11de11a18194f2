package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// HostHandler is what a host does with what arrives. All functions are called
// from Serve's goroutine; nil ones are skipped.
type HostHandler struct {
	OnHello func(Hello)
	Spec    func() []byte // the spec as JSON, when the guest asks for it; nil or empty refuses
	OnEvent func(Event)
	// Report receives the report's bytes as they come, possibly torn: Outcome
	// says whether they are whole. An error of it does not end the
	// conversation: the rest of the report is dropped and the error kept.
	Report io.Writer

	Silence time.Duration // longest time without a frame; 0 means no limit
	Beat    time.Duration // between two signs of life for the guest, after its hello; default DefaultBeat
	Limits  HostLimits
}

// HostLimits bound what a guest may send. Zero fields mean the defaults.
type HostLimits struct {
	Events      int   // number of events; default 1,000,000
	ReportBytes int64 // bytes of the compressed report; default 1 GiB
	Skipped     int   // frames of unknown types; default 10,000
}

func (l HostLimits) withDefaults() HostLimits {
	if l.Events == 0 {
		l.Events = 1_000_000
	}
	if l.ReportBytes == 0 {
		l.ReportBytes = 1 << 30
	}
	if l.Skipped == 0 {
		l.Skipped = 10_000
	}
	return l
}

// Outcome is what a conversation brought, whole or not.
type Outcome struct {
	Hello          *Hello // nil when none arrived
	Bye            *Bye   // nil when none arrived: then the guest did not end by itself
	Fatal          string // text of the last fatal event
	Events         int
	Skipped        int   // frames of unknown types
	ReportBytes    int64 // that arrived
	ReportComplete bool  // the last chunk arrived
	ReportErr      error // of HostHandler.Report
}

// Done reports whether the guest said that it did all it was asked to.
func (o *Outcome) Done() bool {
	return o.Bye != nil && o.Bye.Status == StatusDone && o.ReportComplete
}

// Serve is the host's side of one conversation. It returns when the guest has
// said bye (nil error, whatever the bye's status), when the guest breaks the
// protocol or stops, or when ctx ends; what arrived by then is in the Outcome.
// Errors match one of this package's classes, the context's cause, or are the
// stream's own. With an error Serve has closed the stream; without one closing
// it is left to the caller, best after the guest has gone: a close could
// overtake the answer to its bye.
func Serve(ctx context.Context, stream io.ReadWriteCloser, h HostHandler) (Outcome, error) {
	s := &server{r: NewReader(stream), w: NewWriter(stream), h: h, lim: h.Limits.withDefaults()}
	w := watch(ctx, stream, h.Silence)
	err := s.run(w)
	cause := w.stop()
	if err != nil {
		stream.Close() // a beat may wait for room
	}
	s.stopBeats()
	if err == nil {
		return s.out, nil
	}
	if cause != nil {
		err = cause // the stream's error is only the echo of the watchdog closing it
	}
	return s.out, fmt.Errorf("serve guest: %w", err)
}

// server is the state of one conversation.
type server struct {
	r   *Reader
	w   *Writer
	h   HostHandler
	lim HostLimits
	out Outcome

	stop  chan struct{} // ends the beats; nil before hello
	beats sync.WaitGroup
}

// DefaultBeat is the time between two beats of a host.
const DefaultBeat = 5 * time.Second

// startBeats sends beats from now on. They come from a goroutine of their own:
// a host that is slow to take what the guest sends is there all the same.
func (s *server) startBeats() {
	every := s.h.Beat
	if every <= 0 {
		every = DefaultBeat
	}
	s.stop = make(chan struct{})
	s.beats.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			default:
			}
			if s.w.WriteFrame(TypeBeat, 0, nil) != nil {
				return // reading notices too
			}
			select {
			case <-tick.C:
			case <-s.stop:
				return
			}
		}
	})
}

// stopBeats waits for the end of the beats.
func (s *server) stopBeats() {
	if s.stop != nil {
		close(s.stop)
		s.beats.Wait()
		s.stop = nil
	}
}

func (s *server) run(w *watchdog) error {
	for s.out.Bye == nil {
		f, err := s.r.ReadFrame()
		if errors.Is(err, io.EOF) {
			return s.ended()
		}
		if err != nil {
			return err
		}
		w.kick()
		if err := s.handle(f); err != nil {
			return err
		}
	}
	// After the answer the guest reads no more: a beat would wait for ever.
	s.stopBeats()
	// A guest that is gone already needs no answer.
	_ = s.send(Bye{Status: StatusDone})
	return nil
}

// ended classifies the end of the stream between two frames.
func (s *server) ended() error {
	if s.out.ReportBytes > 0 && !s.out.ReportComplete {
		return fmt.Errorf("report stops after %d bytes: %w", s.out.ReportBytes, ErrTorn)
	}
	return ErrNoBye
}

func (s *server) handle(f Frame) error {
	if s.out.Hello == nil && f.Type > TypeHello && f.Type <= TypeBeat {
		return fmt.Errorf("%v before hello: %w", f.Type, ErrProtocol)
	}
	switch f.Type {
	case TypeHello:
		return s.hello(f)
	case TypeEvent:
		return s.event(f)
	case TypeReport:
		return s.report(f)
	case TypeBye:
		var b Bye
		if err := decode(f, &b); err != nil {
			return err
		}
		b.Text = clip(b.Text)
		s.out.Bye = &b
		return nil
	case TypeSpec, TypeBeat:
		return fmt.Errorf("%v from the guest: %w", f.Type, ErrProtocol)
	}
	if s.out.Skipped++; s.out.Skipped > s.lim.Skipped {
		return fmt.Errorf("%d frames of unknown types: %w", s.out.Skipped, ErrFlood)
	}
	return skip(f)
}

func (s *server) hello(f Frame) error {
	if s.out.Hello != nil {
		return fmt.Errorf("second hello: %w", ErrProtocol)
	}
	var h Hello
	if err := decode(f, &h); err != nil {
		return err
	}
	s.out.Hello = &h
	if h.Protocol != Protocol {
		return s.refuse(fmt.Errorf("guest (guestinit %.64q) speaks protocol %d, this host %d; build the image with this guestinit: %w",
			h.Version, h.Protocol, Protocol, ErrProtocol))
	}
	if s.h.OnHello != nil {
		s.h.OnHello(h)
	}
	if h.NeedSpec {
		if err := s.sendSpec(); err != nil {
			return err
		}
	}
	s.startBeats()
	return nil
}

func (s *server) sendSpec() error {
	var spec []byte
	if s.h.Spec != nil {
		spec = s.h.Spec()
	}
	if len(spec) == 0 {
		return s.refuse(fmt.Errorf("guest asks for a spec and the host has none: %w", ErrProtocol))
	}
	for {
		n := min(len(spec), chunkSize)
		flags := FlagMust
		if n < len(spec) {
			flags |= FlagMore
		}
		if err := s.w.WriteFrame(TypeSpec, flags, spec[:n]); err != nil {
			return fmt.Errorf("send spec: %w", err)
		}
		if spec = spec[n:]; len(spec) == 0 {
			return nil
		}
	}
}

func (s *server) event(f Frame) error {
	if s.out.Events++; s.out.Events > s.lim.Events {
		return fmt.Errorf("%d events: %w", s.out.Events, ErrFlood)
	}
	var e Event
	if err := decode(f, &e); err != nil {
		return err
	}
	e.Text = clip(e.Text)
	if e.Kind == EventFatal {
		s.out.Fatal = e.Text
	}
	if s.h.OnEvent != nil {
		s.h.OnEvent(e)
	}
	return nil
}

func (s *server) report(f Frame) error {
	if s.out.ReportComplete {
		return fmt.Errorf("report after its end: %w", ErrProtocol)
	}
	if int64(len(f.Payload)) > s.lim.ReportBytes-s.out.ReportBytes {
		return fmt.Errorf("report exceeds %d bytes: %w", s.lim.ReportBytes, ErrFlood)
	}
	s.out.ReportBytes += int64(len(f.Payload))
	s.out.ReportComplete = f.Flags&FlagMore == 0
	if s.h.Report == nil || s.out.ReportErr != nil {
		return nil
	}
	_, s.out.ReportErr = s.h.Report.Write(f.Payload)
	return nil
}

// refuse tells the guest why the host does not go on, and returns err.
func (s *server) refuse(err error) error {
	_ = s.send(Bye{Status: StatusSetup, Text: clip(err.Error())}) // it is refused either way
	return err
}

func (s *server) send(b Bye) error {
	p, err := encode(TypeBye, b)
	if err != nil {
		return err
	}
	return s.w.WriteFrame(TypeBye, FlagMust, p)
}

// watchdog closes the stream when the context ends or no frame arrives in
// time; the close wakes Serve out of a read or a write.
type watchdog struct {
	stream  io.Closer
	silence time.Duration
	unhook  func() bool
	timer   *time.Timer

	mu    sync.Mutex
	cause error // guarded by mu: why the stream was closed
}

func watch(ctx context.Context, stream io.Closer, silence time.Duration) *watchdog {
	w := &watchdog{stream: stream, silence: silence}
	w.unhook = context.AfterFunc(ctx, func() { w.end(context.Cause(ctx)) })
	if silence > 0 {
		w.timer = time.AfterFunc(silence, func() {
			w.end(fmt.Errorf("nothing arrived for %v: %w", silence, ErrSilent))
		})
	}
	return w
}

// end records the first cause and closes the stream.
func (w *watchdog) end(cause error) {
	w.mu.Lock()
	if w.cause == nil {
		w.cause = cause
	}
	w.mu.Unlock()
	w.stream.Close()
}

// kick starts the time of silence anew.
func (w *watchdog) kick() {
	if w.timer != nil {
		w.timer.Reset(w.silence)
	}
}

// stop ends the watch and returns why the watchdog had closed the stream.
func (w *watchdog) stop() error {
	w.unhook()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}
