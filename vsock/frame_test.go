package vsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFrameRoundTrip(t *testing.T) {
	sizes := []int{0, 1, chunkSize, chunkSize + 1, growStep, growStep + 1, MaxPayload}
	var stream bytes.Buffer
	w := NewWriter(&stream)
	for i, n := range sizes {
		p := bytes.Repeat([]byte{byte(i + 1)}, n)
		if err := w.WriteFrame(FrameType(i), Flags(i), p); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(iotest.HalfReader(&stream))
	for i, n := range sizes {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if f.Type != FrameType(i) || f.Flags != Flags(i) || len(f.Payload) != n {
			t.Errorf("frame %d: got type %d flags %d length %d", i, f.Type, f.Flags, len(f.Payload))
		}
		if n > 0 && (f.Payload[0] != byte(i+1) || f.Payload[n-1] != byte(i+1)) {
			t.Errorf("frame %d: payload differs", i)
		}
	}
	for range 2 {
		if _, err := r.ReadFrame(); err != io.EOF {
			t.Errorf("at the end: got %v, want io.EOF", err)
		}
	}
}

// Whatever bit of a frame changes on the way, and wherever two words change places,
// the checksum is another.
func TestChecksum(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 9, 63, 1000} {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(i * i)
		}
		frame := appendFrame(nil, TypeReport, FlagMore, payload)
		read := func() error {
			_, err := NewReader(bytes.NewReader(frame)).ReadFrame()
			return err
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		for i := range 8 * len(frame) {
			frame[i/8] ^= 1 << (i % 8)
			if read() == nil {
				t.Errorf("%d bytes: bit %d does not count", n, i)
			}
			frame[i/8] ^= 1 << (i % 8)
		}
		for i := HeaderSize; i+16 <= len(frame); i += 8 {
			a, b := frame[i:][:8], frame[i+8:][:8]
			was := bytes.Clone(frame)
			copy(a, was[i+8:][:8])
			copy(b, was[i:][:8])
			if !bytes.Equal(frame, was) && read() == nil {
				t.Errorf("%d bytes: the order of words %d and %d does not count", n, i/8, i/8+1)
			}
			copy(frame, was)
		}
	}
}

func TestReadFrameErrors(t *testing.T) {
	good := appendFrame(nil, TypeEvent, FlagMore, []byte("payload"))
	change := func(at int, b byte) []byte {
		c := bytes.Clone(good)
		c[at] ^= b
		return c
	}
	long := bytes.Clone(good)
	binary.BigEndian.PutUint32(long[8:], MaxPayload+1)
	claims := bytes.Clone(good)
	binary.BigEndian.PutUint32(claims[8:], MaxPayload)
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, io.EOF},
		{"part of a header", good[:HeaderSize-1], ErrTorn},
		{"header alone", good[:HeaderSize], ErrTorn},
		{"part of a payload", good[:len(good)-1], ErrTorn},
		{"magic", change(0, 1), ErrCorrupt},
		{"version", change(4, 1), ErrCorrupt},
		{"type", change(5, 1), ErrCorrupt},
		{"flags", change(7, 1), ErrCorrupt},
		{"shorter", change(11, 1), ErrCorrupt},
		{"checksum", change(15, 1), ErrCorrupt},
		{"payload", change(HeaderSize, 1), ErrCorrupt},
		{"longer than allowed", long, ErrTooLarge},
		{"claims more than it sends", claims, ErrTorn},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(tt.in))
			_, err := r.ReadFrame()
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if _, again := r.ReadFrame(); again != err {
				t.Errorf("second call: got %v, want the first error %v", again, err)
			}
			if cap(r.buf) > growStep {
				t.Errorf("took %d bytes for %d that arrived", cap(r.buf), len(tt.in))
			}
		})
	}
}

func TestWriteFrameErrors(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	if err := w.WriteFrame(TypeReport, 0, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("long payload: got %v, want %v", err, ErrTooLarge)
	}
	if err := w.WriteFrame(TypeReport, 0, nil); err != nil || stream.Len() != HeaderSize {
		t.Errorf("after a refused frame: error %v, %d bytes written", err, stream.Len())
	}

	broken := NewWriter(brokenStream{})
	err := broken.WriteFrame(TypeReport, 0, nil)
	if !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("broken stream: got %v", err)
	}
	broken.w = &stream
	if again := broken.WriteFrame(TypeReport, 0, nil); again != err {
		t.Errorf("after a broken frame: got %v, want %v again", again, err)
	}
}

type brokenStream struct{}

func (brokenStream) Write(p []byte) (int, error) { return 0, io.ErrShortWrite }

// recordWrites keeps the size of every write.
type recordWrites struct{ sizes []int }

func (r *recordWrites) Write(p []byte) (int, error) {
	r.sizes = append(r.sizes, len(p))
	return len(p), nil
}

func TestWritesStaySmall(t *testing.T) {
	var rec recordWrites
	if err := NewWriter(&rec).WriteFrame(TypeReport, 0, make([]byte, MaxPayload)); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range rec.sizes {
		total += n
		if n > maxWrite {
			t.Errorf("write of %d bytes, limit %d", n, maxWrite)
		}
	}
	if total != MaxPayload+HeaderSize {
		t.Errorf("wrote %d bytes, want %d", total, MaxPayload+HeaderSize)
	}
}

// vectors is a stream that takes frames in two pieces.
type vectors struct {
	bytes.Buffer
	direct int // bytes of second pieces
	source []byte
	copied bool // a second piece was not of source
}

func (v *vectors) writev(a, b []byte) (int, error) {
	v.direct += len(b)
	at := cap(v.source) - cap(b)
	v.copied = v.copied || at < 0 || &v.source[at] != &b[0]
	v.Write(a)
	return v.Write(b)
}

func (*vectors) Close() error { return nil }

// A report arrives whole, in frames of bounded size of which the last says so,
// whatever the writes are; long ones leave from where they are.
func TestReportWriter(t *testing.T) {
	source := make([]byte, 1<<20)
	for i := range source {
		source[i] = byte(i * i >> 8)
	}
	for _, size := range []int{1, 7, 1000, directSize - 1, directSize, directSize + 3, 100_000, maxWrite - HeaderSize, maxWrite, 300_000} {
		stream := vectors{source: source}
		w := NewGuest(&stream).ReportWriter()
		for rest := source; len(rest) > 0; {
			// Between two long writes stands a short one, of a length that is no word's.
			for _, n := range []int{size, size % 13} {
				n = min(n, len(rest))
				if got, err := w.Write(rest[:n]); err != nil || got != n {
					t.Fatalf("%d: %d, %v", n, got, err)
				}
				rest = rest[n:]
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		direct := stream.direct
		var got []byte
		for r := NewReader(&stream); ; {
			f, err := r.ReadFrame()
			if err != nil {
				t.Fatalf("%d: %v behind %d bytes", size, err, len(got))
			}
			if f.Type != TypeReport || len(f.Payload) > chunkSize {
				t.Fatalf("%d: %v frame of %d bytes", size, f.Type, len(f.Payload))
			}
			if got = append(got, f.Payload...); f.Flags&FlagMore == 0 {
				break
			}
		}
		if !bytes.Equal(got, source) || stream.Len() != 0 {
			t.Errorf("%d: other bytes arrived, %d of them", size, len(got))
		}
		if stream.copied || size >= directSize && direct < len(source)/2 || size < directSize && direct != 0 {
			t.Errorf("%d: %d bytes left without a copy, others %v", size, direct, stream.copied)
		}
	}
}

func TestWriteFrameAllocations(t *testing.T) {
	w := NewWriter(io.Discard)
	p := make([]byte, chunkSize)
	if n := testing.AllocsPerRun(50, func() { _ = w.WriteFrame(TypeReport, 0, p) }); n != 0 {
		t.Errorf("%v allocations per frame, want 0", n)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, TypeHello, FlagMust, []byte("a")))
	f.Add(appendFrame(appendFrame(nil, TypeReport, FlagMore, []byte("first")), 99, 0, nil))
	f.Add(appendFrame(nil, TypeEvent, 0, []byte("torn"))[:HeaderSize+2])
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		var out []byte
		for {
			frame, err := r.ReadFrame()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrTorn) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("unclassified error %v", err)
				}
				if err == io.EOF && len(out) != len(in) {
					t.Fatalf("clean end after %d of %d bytes", len(out), len(in))
				}
				break
			}
			out = appendFrame(out, frame.Type, frame.Flags, frame.Payload)
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("frames read do not encode to the bytes they came from")
		}
	})
}
