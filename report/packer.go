package report

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// rawLimit is how many bytes travel uncompressed before the compressor is set
// up. The first use of a compressor costs a small guest more, in code that has
// never run and memory that has never been touched, than sending a report of a
// few dozen workers as it is.
const rawLimit = 32 << 10

// A zstd frame whose blocks are stored: RFC 8878, section 3.1.1. The window is
// windowSize, the content size is not told.
const (
	frameMagic      = "\x28\xb5\x2f\xfd"
	frameDescriptor = 0
	windowLog       = 18
	windowByte      = (windowLog - 10) << 3
	blockLast       = 1
)

// packer is a writer of zstd: a frame of stored blocks first, and behind it,
// where there is more, a compressed one. A reader of zstd streams takes both as
// one. Stored blocks have no checksum; the frames of the link have.
type packer struct {
	w    io.Writer
	buf  []byte        // waits to be stored
	sent int           // bytes stored
	zw   *zstd.Encoder // nil while blocks are stored
}

func newPacker(w io.Writer) *packer { return &packer{w: w} }

// Write takes a piece of the content.
func (s *packer) Write(p []byte) (int, error) {
	if s.zw == nil {
		if s.sent+len(s.buf)+len(p) <= rawLimit {
			s.buf = append(s.buf, p...)
			return len(p), nil
		}
		if err := s.compress(); err != nil {
			return 0, err
		}
	}
	return s.zw.Write(p)
}

// compress ends the frame of stored blocks, if there is one, and begins the
// compressed one. What waits goes into the latter.
func (s *packer) compress() error {
	if s.sent > 0 {
		if err := s.store(nil, blockLast); err != nil {
			return err
		}
	}
	zw, err := zstd.NewWriter(s.w,
		zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(windowSize),
		zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return fmt.Errorf("set up compressor: %w", err)
	}
	s.zw = zw
	_, err = zw.Write(s.buf)
	s.buf = nil
	return err
}

// store writes one block, at most rawLimit bytes, with the frame's header
// before the first.
func (s *packer) store(p []byte, flags uint32) error {
	var out []byte
	if s.sent == 0 {
		out = append(out, frameMagic...)
		out = append(out, frameDescriptor, windowByte)
	}
	head := uint32(len(p))<<3 | flags // the type of a stored block is 0
	out = append(out, byte(head), byte(head>>8), byte(head>>16))
	_, err := s.w.Write(append(out, p...))
	s.sent += len(p)
	return err
}

// Flush sends everything that was written.
func (s *packer) Flush() error {
	if s.zw != nil {
		return s.zw.Flush()
	}
	if len(s.buf) == 0 {
		return nil
	}
	err := s.store(s.buf, 0)
	s.buf = s.buf[:0]
	return err
}

// Close sends the rest and the end. It does not close the writer below.
func (s *packer) Close() error {
	if s.zw != nil {
		return s.zw.Close()
	}
	err := s.store(s.buf, blockLast)
	s.buf = nil
	return err
}
