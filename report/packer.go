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
// where there is more, a compressed one; and frames of stored blocks wherever
// the caller says that compressing is not worth it. A reader of zstd streams
// takes all as one. Stored blocks have no checksum; the frames of the link have.
type packer struct {
	w      io.Writer
	buf    []byte        // waits to be stored
	out    []byte        // the header of a block
	sent   int           // bytes stored before there was a compressor
	open   bool          // a frame of stored blocks is
	zw     *zstd.Encoder // nil while all is stored
	packed bool          // a compressed frame is open
}

func newPacker(w io.Writer) *packer { return &packer{w: w} }

// Write takes a piece of the content.
func (s *packer) Write(p []byte) (int, error) {
	if s.zw == nil {
		if s.sent+len(s.buf)+len(p) <= rawLimit {
			s.buf = append(s.buf, p...)
			return len(p), nil
		}
	}
	if err := s.compress(); err != nil {
		return 0, err
	}
	return s.zw.Write(p)
}

// compress ends the frame of stored blocks, if there is one, and begins a
// compressed one, if there is none. What waits goes into the latter.
func (s *packer) compress() error {
	if s.packed {
		return nil
	}
	if s.open {
		if err := s.store(nil, blockLast); err != nil {
			return err
		}
	}
	if s.zw == nil {
		zw, err := zstd.NewWriter(s.w,
			zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(windowSize),
			zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return fmt.Errorf("set up compressor: %w", err)
		}
		s.zw = zw
	} else {
		s.zw.Reset(s.w)
	}
	s.packed = true
	_, err := s.zw.Write(s.buf)
	s.buf = nil
	return err
}

// blockSize is the largest block: RFC 8878, section 3.1.1.2.4.
const blockSize = 128 << 10

// stored sends a piece of the content, and what waits before it, as it is.
func (s *packer) stored(p []byte) error {
	if s.packed {
		s.packed = false
		if err := s.zw.Close(); err != nil {
			return err
		}
	}
	if len(s.buf) > 0 {
		if err := s.store(s.buf, 0); err != nil {
			return err
		}
		s.sent += len(s.buf)
		s.buf = s.buf[:0]
	}
	for len(p) > 0 {
		n := min(len(p), blockSize)
		if err := s.store(p[:n], 0); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// store writes one block, with the frame's header before the first, which the
// last one ends.
func (s *packer) store(p []byte, flags uint32) error {
	s.out = s.out[:0]
	if !s.open {
		s.out = append(append(s.out, frameMagic...), frameDescriptor, windowByte)
	}
	head := uint32(len(p))<<3 | flags // the type of a stored block is 0
	s.out = append(s.out, byte(head), byte(head>>8), byte(head>>16))
	s.open = flags&blockLast == 0
	for _, b := range [][]byte{s.out, p} {
		if len(b) == 0 {
			continue
		}
		if _, err := s.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// Flush sends everything that was written.
func (s *packer) Flush() error {
	if s.packed {
		return s.zw.Flush()
	}
	if len(s.buf) == 0 {
		return nil
	}
	err := s.store(s.buf, 0)
	s.sent += len(s.buf)
	s.buf = s.buf[:0]
	return err
}

// Close sends the rest and the end. It does not close the writer below.
func (s *packer) Close() error {
	switch {
	case s.packed:
		s.packed = false
		return s.zw.Close()
	case s.zw != nil && !s.open:
		return nil
	}
	err := s.store(s.buf, blockLast)
	s.buf = nil
	return err
}
