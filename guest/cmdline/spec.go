package cmdline

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// MaxSpec is the largest spec, in bytes of JSON, that DecodeSpec accepts.
const MaxSpec = 16 << 20

// EncodeSpec returns a spec, as JSON, in the form that stands on a command
// line: zstd in unpadded base64url. Whether it fits there is the caller's to
// see.
func EncodeSpec(json []byte) (string, error) {
	w, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderCRC(true))
	if err != nil {
		return "", fmt.Errorf("encode spec: %w", err)
	}
	defer w.Close()
	return base64.RawURLEncoding.EncodeToString(w.EncodeAll(json, nil)), nil
}

// DecodeSpec is the reverse of EncodeSpec. The result has at most MaxSpec
// bytes; whether it is a spec is for others to say.
func DecodeSpec(s string) ([]byte, error) {
	packed, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w%s", KeySpec, err, cutOff(s))
	}
	r, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxSpec))
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", KeySpec, err)
	}
	defer r.Close()
	json, err := r.DecodeAll(packed, nil)
	if err == nil && len(json) == 0 {
		err = errors.New("empty")
	}
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w%s", KeySpec, err, cutOff(s))
	}
	return json, nil
}

// cutOff is a hint at what becomes of long command lines.
func cutOff(s string) string {
	if len(s) < 1500 {
		return ""
	}
	return " (a kernel cuts its command line off in silence, x86 after 2047 bytes; send a long spec over the link)"
}
