package kernel

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

const (
	// maxKernel bounds what a compressed kernel may grow to, in bytes.
	maxKernel = 1 << 30
	// maxModule bounds what a compressed module may grow to, in bytes.
	maxModule = 256 << 20

	// xz and zstd of kernels use the largest windows their presets have.
	maxWindow = 128 << 20

	toolTimeout = 2 * time.Minute
)

// ErrCompression is matched by errors about a compression method that cannot
// be undone here. A bzImage that uses it still boots as it is.
var ErrCompression = errors.New("unsupported compression")

// format is a compression method of kernels and modules.
type format struct {
	name  string
	magic string
	// sized: kernel images carry the unpacked length as four bytes after
	// the stream. In gzip these bytes are part of the format itself.
	sized bool
	open  func(io.Reader) (io.ReadCloser, error)
}

// formats is what scripts/Makefile.lib of Linux knows to pack a kernel with.
func formats() []format {
	return []format{
		{"gzip", "\x1f\x8b\x08", false, openGzip},
		{"xz", "\xfd7zXZ\x00", true, openXZ},
		{"zstd", "\x28\xb5\x2f\xfd", true, openZstd},
		{"lz4", "\x02\x21\x4c\x18", true, openLZ4},
		{"bzip2", "BZh", true, openBzip2},
		{"lzma", "\x5d\x00\x00", true, withTool("xz", "--format=lzma", "-dc")},
		{"lzo", "\x89LZO", true, withTool("lzop", "-dc")},
	}
}

func detectFormat(head []byte) (format, bool) {
	for _, f := range formats() {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f, true
		}
	}
	return format{}, false
}

func openGzip(r io.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return z, nil
}

func openXZ(r io.Reader) (io.ReadCloser, error) {
	z, err := xz.NewReader(r, maxWindow)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(z), nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxKernel))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

func openLZ4(r io.Reader) (io.ReadCloser, error) {
	return io.NopCloser(lz4.NewReader(r)), nil
}

func openBzip2(r io.Reader) (io.ReadCloser, error) {
	return io.NopCloser(bzip2.NewReader(r)), nil
}

// withTool unpacks with a program of the host: lzma and lzo are too rare to
// carry decoders for.
func withTool(name string, args ...string) func(io.Reader) (io.ReadCloser, error) {
	return func(r io.Reader) (io.ReadCloser, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w; install %s", ErrCompression, err, name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Stdin = r
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			cancel()
			return nil, err
		}
		return &toolReader{Reader: out, cmd: cmd, cancel: cancel}, nil
	}
}

type toolReader struct {
	io.Reader
	cmd    *exec.Cmd
	cancel context.CancelFunc
}

// Read turns the tool's own verdict on the stream into the reader's.
func (t *toolReader) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err == io.EOF && t.cmd.ProcessState == nil {
		if werr := t.cmd.Wait(); werr != nil {
			return n, fmt.Errorf("run %s: %w", t.cmd.Path, werr)
		}
	}
	return n, err
}

func (t *toolReader) Close() error {
	t.cancel()
	if t.cmd.ProcessState == nil {
		t.cmd.Wait() // killed by cancel: only the reaping matters
	}
	return nil
}

// ReadModule returns the ELF image of a kernel module file, unpacked when it
// is a .ko.xz, .ko.zst or .ko.gz. What the file is shows in its content, not
// its name. Modules over 256 MiB are refused.
func ReadModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var r io.Reader = f
	if format, ok := detectFormat(head[:n]); ok {
		z, err := format.open(f)
		if err != nil {
			return nil, fmt.Errorf("unpack module %s (%s): %w", path, format.name, err)
		}
		defer z.Close()
		r = z
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("unpack module %s: %w", path, err)
	}
	if len(data) > maxModule {
		return nil, fmt.Errorf("unpack module %s: more than %d bytes", path, maxModule)
	}
	if !bytes.HasPrefix(data, []byte("\x7fELF")) {
		return nil, fmt.Errorf("read module %s: not an ELF file", path)
	}
	return data, nil
}
