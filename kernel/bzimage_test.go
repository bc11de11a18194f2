package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// makeBzImage builds a bzImage of two setup sectors around a payload.
func makeBzImage(release string, payload []byte) []byte {
	const gap = 32 // protected-mode code before the payload
	b := make([]byte, 3*512+gap, 3*512+gap+len(payload))
	le := binary.LittleEndian
	b[offSetupSects] = 2
	le.PutUint16(b[offBootFlag:], bootFlag)
	copy(b[offMagic:], "HdrS")
	le.PutUint16(b[offVersion:], 0x20f)
	if release != "" {
		le.PutUint16(b[offKernelVersion:], 0x300)
		copy(b[0x500:], release+" (builder@host) #1 SMP\x00")
	}
	le.PutUint32(b[offPayload:], gap)
	le.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	return append(b, payload...)
}

func TestParseSetupHeader(t *testing.T) {
	good := makeBzImage("6.99.1-test", []byte("payload."))
	edit := func(f func([]byte)) []byte {
		b := append([]byte(nil), good...)
		f(b)
		return b
	}
	for _, tt := range []struct {
		name  string
		image []byte
		err   string
	}{
		{"good", good, ""},
		{"empty", nil, "not a bzImage"},
		{"short", good[:setupHeaderEnd-1], "not a bzImage"},
		{"no boot flag", edit(func(b []byte) { b[offBootFlag] = 0 }), "not a bzImage"},
		{"no magic", edit(func(b []byte) { b[offMagic] = 'h' }), "not a bzImage"},
		{"old protocol", edit(func(b []byte) { b[offVersion], b[offVersion+1] = 7, 2 }), "boot protocol 2.07 is older"},
		{"no payload", edit(func(b []byte) { clear(b[offPayloadLength : offPayloadLength+4]) }), "no payload"},
		{"payload beyond the end", good[:len(good)-1], "file ends early"},
		{"payload far away", edit(func(b []byte) { b[offPayload+3] = 0xff }), "file ends early"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseSetupHeader(tt.image, int64(len(tt.image)))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			want := setupHeader{release: "6.99.1-test", payload: 3*512 + 32, payloadLength: 8}
			if err != nil || h != want {
				t.Errorf("got %+v, %v; want %+v", h, err, want)
			}
		})
	}
	zero := edit(func(b []byte) { b[offSetupSects] = 0 })
	if h, err := parseSetupHeader(zero, 1<<20); err != nil || h.payload != 5*512+32 {
		t.Errorf("setup_sects 0 means 4: payload at %d, %v", h.payload, err)
	}
}

func FuzzSetupHeader(f *testing.F) {
	f.Add(makeBzImage("6.99.1-test", []byte("payload.")))
	f.Add(makeBzImage("", []byte{1}))
	f.Add(makeBzImage("6.1", nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseSetupHeader(data, int64(len(data)))
		if err != nil {
			return
		}
		if h.payload < 0 || h.payloadLength <= 0 || h.payload+h.payloadLength > int64(len(data)) {
			t.Errorf("payload of %d at %d in %d bytes", h.payloadLength, h.payload, len(data))
		}
		if h.release != "" && (!isDigit(h.release[0]) || strings.ContainsAny(h.release, " /\x00") || len(h.release) > maxReleaseText) {
			t.Errorf("release %q", h.release)
		}
	})
}

func TestImageRelease(t *testing.T) {
	elf, err := os.ReadFile("testdata/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	// The banner lies across the border of two reads.
	far := append([]byte("\x7fELF"), make([]byte, 1<<20-12)...)
	far = append(far, "Linux version 5.5.5 (x)"...)
	arm := make([]byte, 4096)
	copy(arm[56:], arm64Magic)
	for _, tt := range []struct {
		name, want, err string
		data            []byte
	}{
		{"bzImage", "6.99.1-test", "", makeBzImage("6.99.1-test", []byte("x"))},
		{"vmlinux", "6.99.1-test", "", elf},
		{"late banner", "5.5.5", "", far},
		{"arm64 Image without a banner", "", "", arm},
		{"EFI image", "", "", []byte("MZ and more")},
		{"empty", "", "empty", nil},
		{"text", "", "neither a bzImage", []byte("#!/bin/sh\n")},
		{"cut bzImage", "", "file ends early", makeBzImage("6.99.1-test", []byte("xy"))[:3*512+33]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(name, tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := imageRelease(name)
			if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
	if _, err := imageRelease("testdata/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}
