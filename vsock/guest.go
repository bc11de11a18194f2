package vsock

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The guest's waits. A guest among hundreds of busy workers is slow, so they
// bound a dead host and nothing finer.
const (
	DefaultTimeout = 30 * time.Second // one write, or the wait for the spec
	AckTimeout     = 5 * time.Second  // the wait for the host's answer to bye
)

// Guest is the guest's end of the link. Hello comes first and Bye last; Event
// and the report's writer may be used side by side.
type Guest struct {
	stream  io.ReadWriteCloser
	timeout time.Duration
	beat    time.Duration // a host that beats and is silent for so long is gone
	r       *Reader
	w       *Writer
	events  outbox

	mu       sync.Mutex
	bye      bool          // guarded by mu: Bye was sent
	left     error         // guarded by mu: why the host has left; nil while it has not
	lost     chan struct{} // closed when left is set
	answered chan struct{} // closed at the host's bye; nil unless Watch reads
}

// NewGuest returns the guest's end on a stream. Where the stream has
// SetReadDeadline and SetWriteDeadline they bound its waits; else the stream is
// closed when a wait takes too long.
func NewGuest(stream io.ReadWriteCloser) *Guest {
	return &Guest{
		stream:  stream,
		timeout: DefaultTimeout,
		beat:    HostSilence,
		r:       NewReader(stream),
		w:       NewWriter(stream),
		lost:    make(chan struct{}),
	}
}

// SetTimeout replaces DefaultTimeout. Call it before Hello.
func (g *Guest) SetTimeout(d time.Duration) { g.timeout = d }

// Hello introduces the guest. It fills in Protocol.
func (g *Guest) Hello(h Hello) error {
	h.Protocol = Protocol
	h.Version, h.KernelRelease, h.Machine = clip(h.Version), clip(h.KernelRelease), clip(h.Machine)
	return g.send(TypeHello, FlagMust, h)
}

// ReceiveSpec waits for the spec that Hello asked for, of at most limit bytes.
// Its errors match ErrRefused when the host says no, ErrTooLarge above the
// limit, ErrSilent when the time is up, ErrTorn when the host goes away.
func (g *Guest) ReceiveSpec(limit int) ([]byte, error) {
	var spec []byte
	err := g.bounded(readDeadline, g.timeout, func() error {
		for {
			f, err := g.r.ReadFrame()
			switch {
			case errors.Is(err, io.EOF):
				return fmt.Errorf("host closed the link: %w", ErrTorn)
			case err != nil:
				return err
			case f.Type == TypeBye:
				return refusal(f)
			case f.Type != TypeSpec:
				if err := skip(f); err != nil {
					return err
				}
				continue
			}
			if len(f.Payload) > limit-len(spec) {
				return fmt.Errorf("spec exceeds %d bytes: %w", limit, ErrTooLarge)
			}
			spec = append(spec, f.Payload...)
			if f.Flags&FlagMore == 0 {
				return nil
			}
		}
	})
	if err != nil {
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrTorn) {
			g.hostLeft(err)
		}
		return nil, fmt.Errorf("receive spec: %w", err)
	}
	return spec, nil
}

// ReportWriter returns the writer of the report's bytes. They travel in chunks
// of under 128 KiB; Close sends the last one, and without it the host takes the
// report for torn. It is for one goroutine, and for one report per link.
func (g *Guest) ReportWriter() io.WriteCloser {
	_, direct := g.stream.(vectorWriter)
	return &chunkWriter{
		buf:    make([]byte, HeaderSize, maxWrite),
		direct: direct,
		send: func(flags Flags, frame, rest []byte) error {
			return g.writing(TypeReport, func() error {
				return g.w.writeInPlace(TypeReport, FlagMust|flags, frame, rest)
			})
		},
	}
}

// Bye says how the run ended and waits at most AckTimeout for the host to
// acknowledge it, after which nothing can be lost by a power-off. It may be
// called from any goroutine; only the first call sends.
func (g *Guest) Bye(b Bye) error {
	g.mu.Lock()
	again := g.bye
	g.bye = true
	g.mu.Unlock()
	if again {
		return nil
	}
	b.Text = clip(b.Text)
	if err := g.flush(); err != nil {
		return fmt.Errorf("send events: %w", err)
	}
	if err := g.send(TypeBye, FlagMust, b); err != nil {
		return err
	}
	if err := g.awaitAnswer(); err != nil {
		return fmt.Errorf("await answer to bye: %w", err)
	}
	return nil
}

// Close closes the stream.
func (g *Guest) Close() error { return g.stream.Close() }

// send encodes and writes a message.
func (g *Guest) send(t FrameType, flags Flags, m message) error {
	b, err := encode(t, m)
	if err != nil {
		return err
	}
	return g.write(t, flags, b)
}

func (g *Guest) write(t FrameType, flags Flags, payload []byte) error {
	return g.writing(t, func() error { return g.w.WriteFrame(t, flags, payload) })
}

// writing writes a frame, unless the host has left, and notes if it has.
func (g *Guest) writing(t FrameType, write func() error) error {
	if err := g.Err(); err != nil {
		return fmt.Errorf("write %v frame: %w", t, err)
	}
	err := g.bounded(writeDeadline, g.timeout, write)
	if err != nil && !errors.Is(err, ErrTooLarge) {
		g.hostLeft(err)
	}
	return err
}

// direction tells which deadline of a stream a wait is bounded by.
type direction int

const (
	readDeadline direction = iota
	writeDeadline
)

// bounded runs op, which reads or writes the stream, for at most d.
func (g *Guest) bounded(dir direction, d time.Duration, op func() error) error {
	var err error
	if set := g.deadlineSetter(dir); set != nil && set(time.Now().Add(d)) == nil {
		err = op()
	} else {
		t := time.AfterFunc(d, func() { g.stream.Close() })
		err = op()
		if !t.Stop() && err != nil {
			return fmt.Errorf("no progress in %v: %w: %w", d, ErrSilent, err)
		}
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no progress in %v: %w: %w", d, ErrSilent, err)
	}
	return err
}

func (g *Guest) deadlineSetter(dir direction) func(time.Time) error {
	if dir == readDeadline {
		if s, ok := g.stream.(interface{ SetReadDeadline(time.Time) error }); ok {
			return s.SetReadDeadline
		}
		return nil
	}
	if s, ok := g.stream.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return s.SetWriteDeadline
	}
	return nil
}

// refusal is the error that a host's bye stands for.
func refusal(f Frame) error {
	var b Bye
	if err := decode(f, &b); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrRefused, clip(b.Text))
}

// skip passes over a frame that is not expected here, if the protocol allows.
func skip(f Frame) error {
	if f.Flags&FlagMust != 0 {
		return fmt.Errorf("unexpected %v frame: %w", f.Type, ErrProtocol)
	}
	return nil
}

// directSize is how long a write is at least that leaves without a copy.
const directSize = 16 << 10

// chunkWriter cuts a byte stream into frames. A chunk leaves when the next
// byte no longer fits, so that the last one is known at Close. A long write leaves
// at once, behind what waits, from where it is.
type chunkWriter struct {
	buf    []byte // room for the header, and the chunk
	direct bool   // the stream takes a frame in two pieces
	send   func(flags Flags, frame, rest []byte) error
	closed bool
}

func (c *chunkWriter) Write(p []byte) (int, error) {
	if c.closed {
		return 0, io.ErrClosedPipe
	}
	total := 0
	for len(p) > 0 {
		n := min(len(p), cap(c.buf)-len(c.buf))
		var rest []byte
		if c.direct && len(p) >= directSize && n > wordSize {
			last := len(c.buf) % wordSize // bytes of a word that waits for more
			fill := (wordSize - last) % wordSize
			rest, n = p[fill:n], fill
		}
		c.buf = append(c.buf, p[:n]...)
		n += len(rest)
		if rest != nil || n == 0 {
			if err := c.send(FlagMore, c.buf, rest); err != nil {
				return total, err
			}
			c.buf = c.buf[:HeaderSize]
		}
		p = p[n:]
		total += n
	}
	return total, nil
}

func (c *chunkWriter) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	return c.send(0, c.buf, nil)
}
