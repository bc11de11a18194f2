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

// plainSpec is the largest spec, in bytes of JSON, that EncodeSpec does not
// compress: to set up a decompressor costs a guest more than a longer line.
const plainSpec = 512

// EncodeSpec returns a spec, as JSON, in the form that stands on a command
// line: unpadded base64url of the JSON or, where that is long or not an object,
// of its zstd. Whether it fits there is the caller's to see.
func EncodeSpec(json []byte) (string, error) {
	if len(json) <= plainSpec && isPlain(json) {
		return base64.RawURLEncoding.EncodeToString(json), nil
	}
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
	if isPlain(packed) {
		if len(packed) > MaxSpec {
			return nil, fmt.Errorf("decode %s: %d bytes exceed %d", KeySpec, len(packed), MaxSpec)
		}
		return packed, nil
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

// isPlain tells a JSON object, which zstd never begins like, from zstd.
func isPlain(b []byte) bool { return len(b) > 0 && b[0] == '{' }

// cutOff is a hint at what becomes of long command lines.
func cutOff(s string) string {
	if len(s) < 1500 {
		return ""
	}
	return " (a kernel cuts its command line off in silence, x86 after 2047 bytes; send a long spec over the link)"
}
