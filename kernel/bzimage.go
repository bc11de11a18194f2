package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Offsets into the x86 setup header, from Documentation/arch/x86/boot.rst.
const (
	offSetupSects    = 0x1f1
	offBootFlag      = 0x1fe
	offMagic         = 0x202
	offVersion       = 0x206
	offKernelVersion = 0x20e
	offPayload       = 0x248
	offPayloadLength = 0x24c

	setupHeaderEnd  = 0x250
	bootFlag        = 0xaa55
	minBootProtocol = 0x208 // the first with payload_offset: Linux 2.6.26
	maxSetup        = (256 + 1) * 512
	maxReleaseText  = 256
)

// setupHeader is what is needed of a bzImage's setup header.
type setupHeader struct {
	release       string // first word of kernel_version
	payload       int64  // offset of the compressed kernel in the file
	payloadLength int64  // its length in bytes
}

var (
	errNotBzImage = errors.New("not a bzImage")
	errTruncated  = errors.New("file ends early")
)

// parseSetupHeader reads the start of a bzImage. head should hold at least
// the setup code, 128 KiB at most; size is the length of the file in bytes.
func parseSetupHeader(head []byte, size int64) (setupHeader, error) {
	var h setupHeader
	le := binary.LittleEndian
	if len(head) < setupHeaderEnd || le.Uint16(head[offBootFlag:]) != bootFlag || string(head[offMagic:offMagic+4]) != "HdrS" {
		return h, errNotBzImage
	}
	if v := le.Uint16(head[offVersion:]); v < minBootProtocol {
		return h, fmt.Errorf("boot protocol %d.%02d is older than 2.08: no payload offset", v>>8, v&0xff)
	}
	h.release = setupRelease(head)
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	h.payload = (sects+1)*512 + int64(le.Uint32(head[offPayload:]))
	h.payloadLength = int64(le.Uint32(head[offPayloadLength:]))
	if h.payloadLength == 0 {
		return h, errors.New("bzImage carries no payload")
	}
	if h.payload+h.payloadLength > size {
		return h, fmt.Errorf("payload of %d bytes at %d in a file of %d: %w", h.payloadLength, h.payload, size, errTruncated)
	}
	return h, nil
}

// setupRelease returns the first word of the version string that the header
// points to, "" when there is none.
func setupRelease(head []byte) string {
	at := int(binary.LittleEndian.Uint16(head[offKernelVersion:]))
	if at == 0 || at+0x200 >= len(head) {
		return ""
	}
	text := head[at+0x200:]
	return releaseWord(text[:min(len(text), maxReleaseText)])
}

// releaseWord returns the leading run of characters that a release may have.
func releaseWord(b []byte) string {
	end := bytes.IndexFunc(b, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' ||
			r == '.' || r == '-' || r == '+' || r == '_' || r == '~')
	})
	if end <= 0 || !isDigit(b[0]) {
		return ""
	}
	return string(b[:end])
}

// readSetupHeader reads the header of a bzImage.
func readSetupHeader(f *os.File) (setupHeader, error) {
	st, err := f.Stat()
	if err != nil {
		return setupHeader{}, err
	}
	head := make([]byte, maxSetup)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return setupHeader{}, err
	}
	return parseSetupHeader(head[:n], st.Size())
}

// imageRelease checks that path is a kernel image and returns the release it
// tells, "" when it tells none.
func imageRelease(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, err := readSetupHeader(f)
	if err == nil {
		return h.release, nil
	}
	if !errors.Is(err, errNotBzImage) {
		return "", err
	}
	var magic [64]byte
	if n, err := f.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return "", err
	} else if n == 0 {
		return "", errors.New("file is empty")
	}
	if string(magic[:4]) == "\x7fELF" || string(magic[56:60]) == arm64Magic {
		return scanRelease(f)
	}
	if string(magic[:2]) == "MZ" || string(magic[:2]) == "\x1f\x8b" {
		return "", nil // an EFI or gzipped image as arm64 has them: QEMU knows better
	}
	return "", errors.New("neither a bzImage nor a vmlinux nor an arm64 Image")
}

// arm64Magic stands at offset 56 of an arm64 Image
// (Documentation/arch/arm64/booting.rst).
const arm64Magic = "ARM\x64"

const banner = "Linux version "

// scanRelease looks for the kernel's banner in an uncompressed image.
func scanRelease(r io.Reader) (string, error) {
	const overlap = len(banner) + maxReleaseText
	buf := make([]byte, 1<<20)
	have := 0
	for {
		n, err := io.ReadFull(r, buf[have:])
		have += n
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return "", err
		}
		for at := 0; ; {
			i := bytes.Index(buf[at:have], []byte(banner))
			if i < 0 {
				break
			}
			at += i + len(banner)
			// Format strings such as "Linux version %s" carry no release.
			if rel := releaseWord(buf[at:min(have, at+maxReleaseText)]); rel != "" {
				return rel, nil
			}
		}
		if last {
			return "", nil
		}
		have = copy(buf, buf[have-overlap:have])
	}
}
