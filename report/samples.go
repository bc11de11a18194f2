package report

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/guestinit/guestinit/internal/sample"
)

// Sample is one duration as the worker kept it, in 32 bits: exact below 2³¹ ns
// (2.1 s), above less than it was by at most 1 part in 2²⁶. Ns tells it.
// Samples compare as their durations do.
type Sample uint32

// PackSample returns the sample for a duration in ns; from 1<<63 on it is the
// longest there is.
func PackSample(ns uint64) Sample { return Sample(sample.Pack(ns)) }

// Ns is the duration in nanoseconds.
func (s Sample) Ns() uint64 { return sample.Ns(uint32(s)) }

// Samples is a list of durations. On the wire it is a typed array of RFC 8746, of
// 32-bit little-endian words: the samples as they are. In JSON it is a list of
// nanoseconds.
type Samples []Sample

// tagUint32LE is the tag of a typed array of little-endian uint32: RFC 8746,
// section 2.1.
const tagUint32LE = 70

// sampleSize is the size of a sample in bytes.
const sampleSize = 4

// CBOR major types, RFC 8949 section 3.1, in place in the initial byte.
const (
	majorUnsigned = 0 << 5
	majorBytes    = 2 << 5
	majorArray    = 4 << 5
	majorTag      = 6 << 5
)

// MarshalCBOR writes s as a typed array.
func (s Samples) MarshalCBOR() ([]byte, error) {
	b := appendArrayHead(make([]byte, 0, 2+9+sampleSize*len(s)), len(s))
	return append(b, s.bytes()...), nil
}

// appendArrayHead appends what stands before the words of a typed array of n.
func appendArrayHead(b []byte, n int) []byte {
	return appendHead(append(b, majorTag|24, tagUint32LE), majorBytes, uint64(sampleSize*n))
}

// UnmarshalCBOR reads a typed array.
func (s *Samples) UnmarshalCBOR(b []byte) error {
	words, err := typedArray(b)
	if err != nil {
		return err
	}
	*s = appendWords(make(Samples, 0, len(words)/sampleSize), words)
	return nil
}

// MarshalJSON writes a list of nanoseconds.
func (s Samples) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 2+8*len(s)), '[')
	for i, v := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, v.Ns(), 10)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads a list of nanoseconds.
func (s *Samples) UnmarshalJSON(b []byte) error {
	var ns []uint64
	if err := json.Unmarshal(b, &ns); err != nil {
		return err
	}
	*s = nil
	for _, v := range ns {
		*s = append(*s, PackSample(v))
	}
	return nil
}

// typedArray returns the words of a typed array.
func typedArray(b []byte) (words []byte, err error) {
	if len(b) < 3 || b[0] != majorTag|24 {
		return nil, errors.New("samples: not a typed array")
	}
	if b[1] != tagUint32LE {
		return nil, fmt.Errorf("samples: typed array of tag %d, want %d", b[1], tagUint32LE)
	}
	n, used := parseHead(b[2:], majorBytes)
	words = b[2+used:]
	if used == 0 || n != uint64(len(words)) || len(words)%sampleSize != 0 {
		return nil, fmt.Errorf("samples: %d bytes do not make an array of %d-byte words", len(words), sampleSize)
	}
	return words, nil
}

// appendWords appends little-endian words.
func appendWords(s Samples, words []byte) Samples {
	at, n := len(s), len(words)/sampleSize
	s = slices.Grow(s, n)[:at+n]
	copy(s[at:].bytes(), words)
	return s
}

// appendHead appends the head of a CBOR item: major type and argument, shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// headSize is the size of the CBOR head that starts with first, or 0 if its
// argument is none that we write (indefinite or reserved).
func headSize(first byte) int {
	switch info := first & 31; {
	case info < 24:
		return 1
	case info <= 27:
		return 1 + 1<<(info-24)
	}
	return 0
}

// parseHead reads the head of a CBOR item of the given major type. used is 0 if
// b does not start with one.
func parseHead(b []byte, major byte) (n uint64, used int) {
	if len(b) == 0 || b[0]&0xe0 != major {
		return 0, 0
	}
	used = headSize(b[0])
	if used == 0 || len(b) < used {
		return 0, 0
	}
	if used == 1 {
		return uint64(b[0] & 31), 1
	}
	for _, c := range b[1:used] {
		n = n<<8 | uint64(c)
	}
	return n, used
}
