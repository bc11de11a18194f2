package vsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync"
)

// FrameType says what a frame's payload is.
type FrameType uint8

// The frame types.
const (
	TypeHello  FrameType = 1 // guest → host: Hello
	TypeSpec   FrameType = 2 // host → guest: a chunk of the spec, JSON
	TypeEvent  FrameType = 3 // guest → host: Event
	TypeReport FrameType = 4 // guest → host: a chunk of the report, zstd
	TypeBye    FrameType = 5 // both: Bye; from the host it acknowledges or refuses
	TypeBeat   FrameType = 6 // host → guest: the host is there; empty
)

// String returns the type's name, or its number for an unknown one.
func (t FrameType) String() string {
	switch t {
	case TypeHello:
		return "hello"
	case TypeSpec:
		return "spec"
	case TypeEvent:
		return "event"
	case TypeReport:
		return "report"
	case TypeBye:
		return "bye"
	case TypeBeat:
		return "beat"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Flags modify a frame.
type Flags uint16

// The flags. Unknown bits are ignored.
const (
	FlagMore Flags = 1 << 0 // more chunks of the same message follow
	FlagMust Flags = 1 << 1 // a receiver that does not know the type must end with an error
)

// Sizes and versions of the wire form.
const (
	FrameVersion = 4
	HeaderSize   = 16      // bytes: magic 4, version 1, type 1, flags 2, length 4, checksum 4; big endian
	MaxPayload   = 1 << 20 // bytes of payload in one frame

	// maxWrite bounds one write to the stream: large enough that the calls cost
	// little, small enough that other frames come in between.
	maxWrite = 128 << 10
	// chunkSize makes a chunk with its header one write.
	chunkSize = maxWrite - HeaderSize
	// growStep is how much a reader allocates ahead of what has arrived.
	growStep = 64 << 10

	frameMagic = 0x47695431 // "GiT1"
)

// Frame is one frame as it was read.
type Frame struct {
	Type    FrameType
	Flags   Flags
	Payload []byte // valid until the next ReadFrame
}

// Reader reads frames. It is not safe for concurrent use.
type Reader struct {
	r   io.Reader
	hdr [HeaderSize]byte
	buf []byte
	err error

	between bool // the last read met a deadline before the first byte of a frame
}

// NewReader returns a Reader on r. It reads no further than the frames it
// returns.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// ReadFrame reads one frame. It returns io.EOF when the stream ends between
// frames and an error matching ErrTorn, ErrCorrupt or ErrTooLarge when a frame
// is not whole; other errors are the stream's own. An error is final, every
// later call returns it again; but a deadline that passes between frames is not.
func (r *Reader) ReadFrame() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	f, err := r.readFrame()
	if !r.between {
		r.err = err
	}
	return f, err
}

func (r *Reader) readFrame() (Frame, error) {
	n, err := io.ReadFull(r.r, r.hdr[:])
	r.between = n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
	if err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return Frame{}, io.EOF
		}
		return Frame{}, fmt.Errorf("read frame header: %w", tornError(err))
	}
	h := r.hdr[:]
	if m := binary.BigEndian.Uint32(h); m != frameMagic {
		return Frame{}, fmt.Errorf("read frame header: magic %#08x: %w", m, ErrCorrupt)
	}
	if h[4] != FrameVersion {
		return Frame{}, fmt.Errorf("read frame header: frame version %d, this side speaks %d: %w", h[4], FrameVersion, ErrCorrupt)
	}
	f := Frame{Type: FrameType(h[5]), Flags: Flags(binary.BigEndian.Uint16(h[6:]))}
	size := binary.BigEndian.Uint32(h[8:])
	if size > MaxPayload {
		return Frame{}, fmt.Errorf("read %v frame: %d bytes of payload, limit %d: %w", f.Type, size, MaxPayload, ErrTooLarge)
	}
	if err := r.readPayload(int(size)); err != nil {
		return Frame{}, fmt.Errorf("read %v frame: %w", f.Type, tornError(err))
	}
	f.Payload = r.buf
	want := binary.BigEndian.Uint32(h[12:])
	clear(h[12:])
	if got := checksum(h, f.Payload, nil); got != want {
		return Frame{}, fmt.Errorf("read %v frame: checksum %#08x, want %#08x: %w", f.Type, got, want, ErrCorrupt)
	}
	return f, nil
}

// readPayload fills r.buf with n bytes. Memory follows what arrived, not what
// the header claims.
func (r *Reader) readPayload(n int) error {
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		step := min(n-len(r.buf), growStep)
		if cap(r.buf)-len(r.buf) < step {
			grown := make([]byte, len(r.buf), max(len(r.buf)+step, min(2*cap(r.buf), MaxPayload)))
			copy(grown, r.buf)
			r.buf = grown
		}
		at := len(r.buf)
		r.buf = r.buf[:at+step]
		if _, err := io.ReadFull(r.r, r.buf[at:]); err != nil {
			return err
		}
	}
	return nil
}

// Writer writes frames. It is safe for concurrent use: frames never mix.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer // guarded by mu
	buf []byte    // guarded by mu
	err error     // guarded by mu
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteFrame writes one frame, in pieces of at most 128 KiB. A payload above
// MaxPayload is refused with ErrTooLarge and leaves the stream usable; an error
// of the stream is final, for the peer then cannot find the next frame.
func (w *Writer) WriteFrame(t FrameType, flags Flags, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("write %v frame: %d bytes of payload, limit %d: %w", t, len(payload), MaxPayload, ErrTooLarge)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.buf = appendFrame(w.buf[:0], t, flags, payload)
	return w.write(t, w.buf)
}

// writeInPlace is WriteFrame of a payload that stands behind HeaderSize bytes of
// room, and goes on in rest where that is not empty, of maxWrite bytes at most in
// all. With a rest the payload before it is of whole words, and the stream writes
// vectors.
func (w *Writer) writeInPlace(t FrameType, flags Flags, frame, rest []byte) error {
	putHeader(frame, rest, t, flags)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if len(rest) == 0 {
		return w.write(t, frame)
	}
	if _, err := w.w.(vectorWriter).writev(frame, rest); err != nil {
		w.err = fmt.Errorf("write %v frame: %w", t, err)
	}
	return w.err
}

// vectorWriter is a stream that writes two pieces in one call.
type vectorWriter interface {
	writev(a, b []byte) (int, error)
}

// write writes a frame in pieces. The caller holds mu.
func (w *Writer) write(t FrameType, frame []byte) error {
	for rest := frame; len(rest) > 0; {
		n := min(len(rest), maxWrite)
		if _, err := w.w.Write(rest[:n]); err != nil {
			w.err = fmt.Errorf("write %v frame: %w", t, err)
			return w.err
		}
		rest = rest[n:]
	}
	return nil
}

// appendFrame appends the wire form of a frame to dst.
func appendFrame(dst []byte, t FrameType, flags Flags, payload []byte) []byte {
	at := len(dst)
	dst = append(append(dst, make([]byte, HeaderSize)...), payload...)
	putHeader(dst[at:], nil, t, flags)
	return dst
}

// putHeader writes the header of a frame, in front of its payload, which goes on in
// rest.
func putHeader(frame, rest []byte, t FrameType, flags Flags) {
	h, payload := frame[:HeaderSize], frame[HeaderSize:]
	binary.BigEndian.PutUint32(h, frameMagic)
	h[4], h[5] = FrameVersion, byte(t)
	binary.BigEndian.PutUint16(h[6:], uint16(flags))
	binary.BigEndian.PutUint32(h[8:], uint32(len(payload)+len(rest)))
	clear(h[12:])
	binary.BigEndian.PutUint32(h[12:], checksum(h, payload, rest))
}

// checksum is over a header whose checksum field is zero, and the payload, which
// may go on in rest behind a whole word: of their 64-bit little-endian words, the
// last one filled up with zeros, each is mixed into what the ones before it left.
// It is no CRC: the instructions for one are loops over bits in an emulated CPU,
// and took a quarter of the time in which a guest sends its report.
func checksum(header, payload, rest []byte) uint32 {
	h := mix(mix(mix(0, header), payload), rest)
	h = (h ^ h>>29) * mixFactor
	return uint32(h ^ h>>32)
}

// mixFactor is the odd number next to 2⁶⁴ divided by the golden ratio.
const mixFactor = 0x9E37_79B9_7F4A_7C15

// wordSize is what the checksum takes at once, in bytes.
const wordSize = 8

// mix can be undone step by step: words that differ in one place never end alike.
func mix(h uint64, b []byte) uint64 {
	for ; len(b) >= 4*wordSize; b = b[4*wordSize:] {
		four := (*[4 * wordSize]byte)(b) // an emulated CPU has fewer bounds to check
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(four[:]), 29) * mixFactor
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(four[wordSize:]), 29) * mixFactor
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(four[2*wordSize:]), 29) * mixFactor
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(four[3*wordSize:]), 29) * mixFactor
	}
	for ; len(b) >= wordSize; b = b[wordSize:] {
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(b), 29) * mixFactor
	}
	if len(b) > 0 {
		var last [wordSize]byte
		copy(last[:], b)
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(last[:]), 29) * mixFactor
	}
	return h
}

// tornError classifies the end of a stream inside a frame.
func tornError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTorn
	}
	return err
}
