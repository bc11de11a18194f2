package report

import (
	"math"
	"reflect"
	"slices"
	"testing"
)

func TestSummarize(t *testing.T) {
	one := func(v uint64) []Bucket { return []Bucket{{Lo: v, Width: 1, Count: 1}} }
	tests := []struct {
		name string
		in   Latency
		want Latency
	}{
		{"empty", Latency{Count: 7, Min: 3, Max: 9, Sum: 5, Mean: 2}, Latency{}},
		{"one value", Latency{Min: 5, Max: 5, Sum: 5, Buckets: one(5)},
			Latency{Count: 1, Min: 5, P50: 5, P90: 5, P99: 5, P999: 5, Max: 5, Mean: 5, Sum: 5}},
		{"upper edge is clamped to max", Latency{Min: 100, Max: 101, Sum: 201, Buckets: []Bucket{{Lo: 96, Width: 32, Count: 2}}},
			Latency{Count: 2, Min: 100, P50: 101, P90: 101, P99: 101, P999: 101, Max: 101, Mean: 100.5, Sum: 201}},
		{"nearest rank", Latency{Min: 1, Max: 1000, Sum: 1000 + 998, Buckets: []Bucket{{Lo: 1, Width: 1, Count: 998}, {Lo: 500, Width: 1, Count: 1}, {Lo: 1000, Width: 1, Count: 1}}},
			Latency{Count: 1000, Min: 1, P50: 1, P90: 1, P99: 1, P999: 500, Max: 1000, Mean: 1.998, Sum: 1998}},
		{"max not stored yet by a killed worker", Latency{Min: 5, Max: 5, Sum: 5, Buckets: []Bucket{{Lo: 5, Width: 1, Count: 1}, {Lo: 64, Width: 2, Count: 1}}},
			Latency{Count: 2, Min: 5, P50: 5, P90: 64, P99: 64, P999: 64, Max: 64, Mean: 5, Sum: 5}},
		{"min never stored", Latency{Min: math.MaxUint64, Max: 0, Buckets: one(9)},
			Latency{Count: 1, Min: 9, P50: 9, P90: 9, P99: 9, P999: 9, Max: 9, Mean: 9}},
	}
	for _, tt := range tests {
		got := tt.in
		got.Summarize()
		got.Buckets = nil
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func TestRank(t *testing.T) {
	for _, tt := range []struct{ n, perMille, want uint64 }{
		{1, 500, 1}, {2, 500, 1}, {3, 500, 2}, {1000, 999, 999}, {1001, 999, 1000}, {10, 990, 10},
		{math.MaxUint64, 500, 1 << 63}, {math.MaxUint64, 1000, math.MaxUint64},
	} {
		if got := rank(tt.n, tt.perMille); got != tt.want {
			t.Errorf("rank(%d, %d) = %d, want %d", tt.n, tt.perMille, got, tt.want)
		}
	}
}

// The percentiles of a pooled histogram are at or above the exact ones, by at
// most one bucket, whatever worker a value came from.
func TestPooledPercentiles(t *testing.T) {
	a, b := population(1000, 7, 3000), population(50, 400, 2000)
	var pool Latency
	pool.Merge(a)
	pool.Merge(b)
	pool.Summarize()
	var all []uint64
	for _, v := range slices.Sorted(slices.Values(append(slices.Clone(a.Samples), b.Samples...))) {
		all = append(all, v.Ns())
	}
	if pool.Count != 5000 || pool.Min != all[0] || pool.Max != all[4999] || pool.Sum != a.Sum+b.Sum {
		t.Errorf("pooled %+v", pool)
	}
	for _, p := range []struct {
		rank int
		got  uint64
	}{{2500, pool.P50}, {4500, pool.P90}, {4950, pool.P99}, {4995, pool.P999}} {
		exact := all[p.rank-1]
		if p.got < exact || float64(p.got) > float64(exact)*(1+1./32) {
			t.Errorf("rank %d: %d, exact %d", p.rank, p.got, exact)
		}
	}
}

func TestMergeBuckets(t *testing.T) {
	b := func(lo, count uint64) Bucket { return Bucket{Lo: lo, Width: 1, Count: count} }
	got := mergeBuckets([]Bucket{b(1, 1), b(4, 2), b(9, 1)}, []Bucket{b(0, 5), b(4, math.MaxUint64), b(10, 3)})
	want := []Bucket{b(0, 5), b(1, 1), b(4, math.MaxUint64), b(9, 1), b(10, 3)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
