package report

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Buckets is a histogram: non-empty buckets, in ascending order. On the wire it is
// a byte string of three varints for each bucket: how far it begins behind the end
// of the one before, its width, its count. Arrays of numbers took an emulated CPU a
// tenth of the time in which it sends a worker with all its samples.
type Buckets []Bucket

// maxBuckets is more than twice as many as the buckets of a worker's histogram.
const maxBuckets = 4096

var errManyBuckets = fmt.Errorf("more than %d buckets", maxBuckets)

// MarshalCBOR writes the byte string. Buckets that overlap or are out of order
// come back as they are.
func (b Buckets) MarshalCBOR() ([]byte, error) {
	text := make([]byte, 0, 8*len(b))
	var end uint64
	for _, v := range b {
		text = binary.AppendUvarint(text, v.Lo-end)
		text = binary.AppendUvarint(text, v.Width)
		text = binary.AppendUvarint(text, v.Count)
		end = v.Lo + v.Width
	}
	return append(appendHead(make([]byte, 0, 9+len(text)), majorBytes, uint64(len(text))), text...), nil
}

// UnmarshalCBOR reads the byte string.
func (b *Buckets) UnmarshalCBOR(data []byte) error {
	size, used := parseHead(data, majorBytes)
	rest := data[used:]
	if used == 0 || size != uint64(len(rest)) {
		return errors.New("buckets: not a byte string")
	}
	*b = nil
	var end uint64
	for len(rest) > 0 {
		if len(*b) == maxBuckets {
			return errManyBuckets
		}
		var n [3]uint64
		for i := range n {
			v, used := binary.Uvarint(rest)
			if used <= 0 {
				return fmt.Errorf("buckets: bucket %d is no three numbers", len(*b))
			}
			n[i], rest = v, rest[used:]
		}
		lo := end + n[0]
		*b = append(*b, Bucket{Lo: lo, Width: n[1], Count: n[2]})
		end = lo + n[1]
	}
	return nil
}
