package report

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Samples is a list of durations in nanoseconds. On the wire it is a typed array
// of RFC 8746, of 32-bit words where every value fits, else of 64-bit words,
// both little-endian.
type Samples []uint64

// RFC 8746, section 2.1: the tags of little-endian uint32 and uint64 arrays.
const (
	tagUint32LE = 70
	tagUint64LE = 71
)

// CBOR major types, RFC 8949 section 3.1, in place in the initial byte.
const (
	majorUnsigned = 0 << 5
	majorBytes    = 2 << 5
	majorArray    = 4 << 5
	majorTag      = 6 << 5
)

// MarshalCBOR writes s as a typed array.
func (s Samples) MarshalCBOR() ([]byte, error) {
	tag, size := byte(tagUint32LE), 4
	for _, v := range s {
		if v > math.MaxUint32 {
			tag, size = tagUint64LE, 8
			break
		}
	}
	b := make([]byte, 0, 2+9+size*len(s))
	b = append(b, majorTag|24, tag)
	b = appendHead(b, majorBytes, uint64(size*len(s)))
	for _, v := range s {
		if size == 4 {
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		} else {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b, nil
}

// UnmarshalCBOR reads a typed array of 32-bit or 64-bit words.
func (s *Samples) UnmarshalCBOR(b []byte) error {
	words, size, err := typedArray(b)
	if err != nil {
		return err
	}
	*s = appendWords(make(Samples, 0, len(words)/size), words, size)
	return nil
}

// typedArray returns the words of a typed array, of size bytes each.
func typedArray(b []byte) (words []byte, size int, err error) {
	if len(b) < 3 || b[0] != majorTag|24 {
		return nil, 0, errors.New("samples: not a typed array")
	}
	switch b[1] {
	case tagUint32LE:
		size = 4
	case tagUint64LE:
		size = 8
	default:
		return nil, 0, fmt.Errorf("samples: typed array of tag %d, want %d or %d", b[1], tagUint32LE, tagUint64LE)
	}
	n, used := parseHead(b[2:], majorBytes)
	words = b[2+used:]
	if used == 0 || n != uint64(len(words)) || len(words)%size != 0 {
		return nil, 0, fmt.Errorf("samples: %d bytes do not make an array of %d-byte words", len(words), size)
	}
	return words, size, nil
}

// appendWords appends little-endian words of size bytes.
func appendWords(s Samples, words []byte, size int) Samples {
	for ; len(words) > 0; words = words[size:] {
		if size == 4 {
			s = append(s, uint64(binary.LittleEndian.Uint32(words)))
		} else {
			s = append(s, binary.LittleEndian.Uint64(words))
		}
	}
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
