package initramfs

import (
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compressions are the values of Options.Compression.
var Compressions = []string{"none", "gzip", "lz4", "zstd"}

// newCompressor returns a writer whose output the kernel's own decompressors
// (lib/decompress*.c) take. Closing it does not close w.
func newCompressor(w io.Writer, method string) (io.WriteCloser, error) {
	switch method {
	case "", "none":
		return nopCloser{w}, nil
	case "gzip":
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case "lz4":
		// The kernel knows the legacy frame only.
		z := lz4.NewWriter(w)
		if err := z.Apply(lz4.LegacyOption(true), lz4.ConcurrencyOption(1)); err != nil {
			return nil, err
		}
		return z, nil
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	default:
		return nil, fmt.Errorf("compression %q is not known; use none, gzip, lz4 or zstd", method)
	}
}

type nopCloser struct{ io.Writer }

// Close does nothing.
func (nopCloser) Close() error { return nil }
