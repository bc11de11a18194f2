package report

import (
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// The kinds of items on the wire; see the package comment.
const (
	kindHeader  = 1
	kindWorker  = 2
	kindTrailer = 3
	kindSamples = 4
)

// Sizes of the encoder: what a reader of a broken stream loses is at most
// flushEvery bytes of workers; the window bounds the memory of both sides.
const (
	flushEvery = 256 << 10
	windowSize = 256 << 10
)

// header is the first item of a report on the wire.
type header struct {
	SchemaVersion int `cbor:"schema_version"`
	Run           Run `cbor:"run"`
}

// Trailer is the last item of a report on the wire: what is known only when all
// workers are collected.
type Trailer struct {
	WorkerCount int      `cbor:"worker_count"` // workers sent before it
	Run         Run      `cbor:"run"`          // complete; replaces the header's
	Notes       []string `cbor:"notes,omitempty"`
	Failures    []string `cbor:"failures,omitempty"` // why the run failed, beyond what the workers say themselves
}

// Encoder writes one report as a stream: Header, Worker for every worker,
// Trailer, Close. It holds one worker at a time. The first error of the underlying
// writer ends it: every later call returns the same. Not for concurrent use.
type Encoder struct {
	mode      cbor.EncMode
	zw        *packer
	head      []byte
	next      int // least kind that may come next; kindTrailer+1 after the trailer
	workers   int
	unflushed int
	chunk     []byte // what stands before the words of samples
	err       error
}

// NewEncoder returns an encoder that writes to w. The stream is complete only
// after Close, which does not close w.
func NewEncoder(w io.Writer) (*Encoder, error) {
	mode, err := cbor.EncOptions{}.EncMode()
	if err != nil {
		return nil, fmt.Errorf("set up report encoder: %w", err)
	}
	return &Encoder{mode: mode, zw: newPacker(w), next: kindHeader}, nil
}

// Header sends what is known of the run before its workers. It must be first,
// and it is flushed, so that a run that ends here still says what it ran on.
func (e *Encoder) Header(run Run) error {
	if err := e.item(kindHeader, header{SchemaVersion, run}, e.pack); err != nil {
		return err
	}
	return e.Flush()
}

// Worker sends the report of one worker. Its samples are read while it does and
// not kept. With samples nothing of it is compressed: what that would save of the
// rest is little beside them, and to begin and end a compressed frame for each
// worker takes an emulated CPU long.
func (e *Encoder) Worker(w *Worker) error {
	without, samples := w.bare()
	write := e.pack
	if w.sampled() {
		write = e.zw.stored
	}
	if err := e.item(kindWorker, without, write); err != nil {
		return err
	}
	e.workers++
	for i, s := range samples {
		if err := e.samples(i, s); err != nil {
			return err
		}
	}
	if e.unflushed < flushEvery {
		return nil
	}
	return e.Flush()
}

// Trailer sends the end of the report. WorkerCount is filled in by the encoder.
func (e *Encoder) Trailer(t Trailer) error {
	t.WorkerCount = e.workers
	return e.item(kindTrailer, t, e.pack)
}

// Flush sends everything encoded so far to the underlying writer.
func (e *Encoder) Flush() error {
	if e.err != nil {
		return e.err
	}
	e.unflushed = 0
	if err := e.zw.Flush(); err != nil {
		e.err = fmt.Errorf("send report: %w", err)
	}
	return e.err
}

// Close ends the stream. Without a Trailer before it, the reader gets what was
// sent and ErrTorn.
func (e *Encoder) Close() error {
	err := e.zw.Close()
	if e.err == nil && err != nil {
		e.err = fmt.Errorf("send report: %w", err)
	}
	if e.err != nil {
		return e.err
	}
	e.err = errors.New("send report: encoder is closed")
	return nil
}

// pack sends bytes that may be compressed.
func (e *Encoder) pack(b []byte) error {
	_, err := e.zw.Write(b)
	return err
}

// item sends one [kind, body].
func (e *Encoder) item(kind int, v any, write func([]byte) error) error {
	if e.err != nil {
		return e.err
	}
	if kind < e.next || e.next == kindHeader && kind != kindHeader {
		return fmt.Errorf("send report: %s out of order", kindName(kind))
	}
	body, err := e.mode.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode report %s: %w", kindName(kind), err)
	}
	e.head = appendHead(append(e.head[:0], majorArray|2, byte(kind)), majorBytes, uint64(len(body)))
	for _, b := range [][]byte{e.head, body} {
		if err := write(b); err != nil {
			e.err = fmt.Errorf("send report %s: %w", kindName(kind), err)
			return e.err
		}
	}
	e.unflushed += len(body)
	e.next = kind
	if kind != kindWorker {
		e.next++
	}
	return nil
}

func kindName(kind int) string {
	switch kind {
	case kindHeader:
		return "header"
	case kindWorker:
		return "worker"
	case kindTrailer:
		return "trailer"
	case kindSamples:
		return "samples"
	}
	return fmt.Sprintf("item of kind %d", kind)
}
