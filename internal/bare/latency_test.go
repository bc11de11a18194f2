package bare

import (
	"math"
	"testing"
)

// TestBucketsTile checks that the buckets cover every 64-bit value once, in
// order, and that none is wider than 1/32 of its values.
func TestBucketsTile(t *testing.T) {
	next := uint64(0)
	for i := range Buckets {
		lo, width := BucketRange(i)
		if lo != next {
			t.Fatalf("bucket %d begins at %d, the one before ends at %d", i, lo, next)
		}
		last := lo + (width - 1)
		if BucketOf(lo) != i || BucketOf(last) != i {
			t.Fatalf("bucket %d holds %d to %d, which belong to %d and %d", i, lo, last, BucketOf(lo), BucketOf(last))
		}
		if lo >= subCount && width > lo/subCount {
			t.Fatalf("bucket %d from %d is %d wide", i, lo, width)
		}
		next = lo + width
	}
	if next != 0 { // 2^64
		t.Errorf("the last bucket ends at %d", next)
	}
}

func FuzzBucketOf(f *testing.F) {
	for _, v := range []uint64{0, 31, 32, 1000, 1 << 40, math.MaxUint64} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v uint64) {
		i := BucketOf(v)
		if i < 0 || i >= Buckets {
			t.Fatalf("%d is in bucket %d of %d", v, i, Buckets)
		}
		if lo, width := BucketRange(i); v < lo || v-lo >= width {
			t.Fatalf("%d is put into bucket %d, which holds %d values from %d", v, i, width, lo)
		}
	})
}

func TestRecordIsExact(t *testing.T) {
	var l Latency
	for _, v := range []uint64{70, 3, 9000, 3} {
		l.Record(v, nil)
	}
	if l.Count != 4 || l.Sum != 9076 || l.Min != 3 || l.Max != 9000 || l.Buckets[3] != 2 {
		t.Errorf("count %d, sum %d, min %d, max %d, threes %d", l.Count, l.Sum, l.Min, l.Max, l.Buckets[3])
	}
}

// TestReservoirIsUniform draws 500 of 10,000 values many times: each tenth of
// the population must have its share.
func TestReservoirIsUniform(t *testing.T) {
	const population, kept, rounds = 10_000, 500, 40
	var tenths [10]int
	for round := range rounds {
		l := Latency{rng: uint64(round+1) * 0xD1342543DE82EF95}
		samples := make([]uint32, kept)
		for v := range uint64(population) {
			l.Record(v, samples)
		}
		for _, v := range samples {
			tenths[v*10/population]++
		}
	}
	want := float64(kept * rounds / 10)
	for i, n := range tenths {
		if math.Abs(float64(n)-want) > 6*math.Sqrt(want) {
			t.Errorf("tenth %d has %d samples, expected about %.0f", i, n, want)
		}
	}
}

func TestReservoirKeepsAllThatFit(t *testing.T) {
	var l Latency
	samples := make([]uint32, 3)
	for _, v := range []uint64{5, 6, 7} {
		l.Record(v, samples)
	}
	if samples[0] != 5 || samples[1] != 6 || samples[2] != 7 {
		t.Errorf("samples %v", samples)
	}
}
