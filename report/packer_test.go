package report

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestPacker writes pieces, some of them flushed, and has a zstd reader put them
// together again: below the limit of stored blocks, at it, and beyond.
func TestPacker(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pieces []int // a negative one is flushed
	}{
		{"nothing", nil},
		{"empty pieces", []int{0, 0}},
		{"one", []int{1}},
		{"small, flushed", []int{-10, -20, 30}},
		{"at the limit", []int{rawLimit}},
		{"at the limit, flushed", []int{-rawLimit, 0}},
		{"one beyond", []int{-rawLimit, 1}},
		{"beyond at once", []int{rawLimit + 1}},
		{"beyond with some waiting", []int{-100, 200, rawLimit, -5, 1 << 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			var want []byte
			s := newPacker(&out)
			for i, n := range tt.pieces {
				piece := bytes.Repeat([]byte{byte(i), 'x', 'y'}, max(n, -n)/3+1)[:max(n, -n)]
				want = append(want, piece...)
				if _, err := s.Write(piece); err != nil {
					t.Fatal(err)
				}
				if n >= 0 {
					continue
				}
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				if got, err := unpack(t, out.Bytes()); err == nil || !bytes.Equal(got, want) {
					t.Errorf("piece %d: %d bytes are there after a flush, want %d; error %v, want one: the end is missing", i, len(got), len(want), err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := unpack(t, out.Bytes())
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes come back as %d, error %v", len(want), len(got), err)
			}
			if stored := s.zw == nil; stored != (len(want) <= rawLimit) {
				t.Errorf("%d bytes, stored %t", len(want), stored)
			}
		})
	}
}

func unpack(t *testing.T, data []byte) ([]byte, error) {
	t.Helper()
	r, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowSize))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return io.ReadAll(r)
}

// TestPackerStored mixes pieces that are compressed with pieces that are not.
func TestPackerStored(t *testing.T) {
	for name, pieces := range map[string][]int{ // a negative one is stored
		"stored alone":      {-5},
		"stored first":      {-5, 10},
		"small, stored":     {10, -blockSize, 10},
		"compressed after":  {10, -5, rawLimit},
		"compressed before": {rawLimit + 1, -5, -3 * blockSize},
		"in turns":          {rawLimit + 1, -5, 100, -5, 100, 100, -5, -5, 1 << 20},
	} {
		var out bytes.Buffer
		var want []byte
		s := newPacker(&out)
		for i, n := range pieces {
			piece := bytes.Repeat([]byte{byte(i), 'x', 'y'}, max(n, -n)/3+1)[:max(n, -n)]
			want = append(want, piece...)
			var err error
			if n < 0 {
				err = s.stored(piece)
			} else {
				_, err = s.Write(piece)
			}
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 1 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := unpack(t, out.Bytes()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes come back as %d, error %v", name, len(want), len(got), err)
		}
	}
}

// A writer that fails fails every way out.
func TestPackerErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, f := range map[string]func(*packer) error{
		"flush":    func(s *packer) error { _, _ = s.Write([]byte("x")); return s.Flush() },
		"close":    func(s *packer) error { return s.Close() },
		"stored":   func(s *packer) error { return s.stored([]byte("x")) },
		"compress": func(s *packer) error { _, err := s.Write(make([]byte, 1<<20)); return errors.Join(err, s.Flush()) },
	} {
		if err := f(newPacker(failing{broken})); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
