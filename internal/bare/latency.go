package bare

import (
	"math/bits"
	"structs"

	"github.com/guestinit/guestinit/internal/sample"
)

// The bucket scheme of Histogram: values below 2^subBits have a bucket each;
// above, each power of two is cut into 2^subBits equal buckets, so a bucket is
// at most 1/32 of its values wide.
const (
	subBits  = 5
	subCount = 1 << subBits

	// Buckets is how many buckets cover all 64-bit values.
	Buckets = (64-subBits)*subCount + subCount
)

// Latency is one population of durations in nanoseconds, recorded by one task
// in memory that the spawner shares. Count, Sum, Min, Max and the buckets hold
// every value; the reservoir that may follow it holds a uniform sample.
type Latency struct {
	_     structs.HostLayout
	Count uint64
	Sum   uint64
	Min   uint64 // meaningless while Count is 0
	Max   uint64
	rng   uint64

	// Phase is the address of a second record that gets every value too, with
	// PhaseSamples values behind it; 0 for none.
	Phase        uintptr
	PhaseSamples uint64

	_       [1]uint64
	Buckets [Buckets]uint64
}

// BucketOf is the index of the bucket that counts v.
func BucketOf(v uint64) int {
	if v < subCount {
		return int(v)
	}
	shift := uint(bits.Len64(v)) - subBits - 1
	return int(shift+1)<<subBits + int(v>>shift)&(subCount-1)
}

// BucketRange is the lowest value of bucket i and its width.
func BucketRange(i int) (lo, width uint64) {
	if i < subCount {
		return uint64(i), 1
	}
	shift := uint(i>>subBits) - 1
	return (subCount | uint64(i)&(subCount-1)) << shift, 1 << shift
}

// Record adds one value. samples is the reservoir, of packed values, which may be
// empty: it keeps each value with the same probability (Vitter's Algorithm R).
func (l *Latency) Record(v uint64, samples []uint32) {
	if l.Count == 0 || v < l.Min {
		l.Min = v
	}
	if v > l.Max {
		l.Max = v
	}
	l.Sum += v
	l.Buckets[BucketOf(v)]++
	n := l.Count
	l.Count = n + 1
	if n < uint64(len(samples)) {
		samples[n] = sample.Pack(v)
		return
	}
	if len(samples) == 0 {
		return
	}
	// The high half of the product is uniform in [0, n].
	if j, _ := bits.Mul64(XorShift(&l.rng, n), n+1); j < uint64(len(samples)) {
		samples[j] = sample.Pack(v)
	}
}

// XorShift draws the next number of a xorshift64 generator; seed starts a state
// that is still zero.
func XorShift(state *uint64, seed uint64) uint64 {
	x := *state
	if x == 0 {
		x = (seed + 1) * 0x9E3779B97F4A7C15
	}
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*state = x
	return x
}
