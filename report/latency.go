package report

import (
	"math"
	"math/bits"
)

// The percentiles of a Latency, in tenths of a percent.
const (
	perMilleP50  = 500
	perMilleP90  = 900
	perMilleP99  = 990
	perMilleP999 = 999
)

// Summarize computes Count, the percentiles and Mean from Buckets, Min, Max and
// Sum. A percentile is the nearest-rank one: the upper edge of the bucket with
// the value of that rank, so that at least that share of all values is at or
// below it, clamped to Min and Max. A Min or Max outside its bucket, as a worker
// that was killed amid an update leaves it, is moved into the bucket.
func (l *Latency) Summarize() {
	l.Count = 0
	for _, b := range l.Buckets {
		l.Count = addSat(l.Count, b.Count)
	}
	if l.Count == 0 {
		l.Min, l.P50, l.P90, l.P99, l.P999, l.Max, l.Mean, l.Sum = 0, 0, 0, 0, 0, 0, 0, 0
		return
	}
	first, last := l.Buckets[0], l.Buckets[len(l.Buckets)-1]
	l.Min = min(max(l.Min, first.Lo), first.last())
	l.Max = max(min(max(l.Max, last.Lo), last.last()), l.Min)
	for _, p := range []struct {
		perMille uint64
		at       *uint64
	}{{perMilleP50, &l.P50}, {perMilleP90, &l.P90}, {perMilleP99, &l.P99}, {perMilleP999, &l.P999}} {
		*p.at = l.atRank(rank(l.Count, p.perMille))
	}
	l.Mean = min(max(float64(l.Sum)/float64(l.Count), float64(l.Min)), float64(l.Max))
}

// last is the largest value that b counts.
func (b Bucket) last() uint64 {
	if b.Lo > math.MaxUint64-b.Width {
		return math.MaxUint64
	}
	return b.Lo + max(b.Width, 1) - 1
}

// rank is the nearest rank of a percentile: ceil(n·perMille/1000), at least 1.
func rank(n, perMille uint64) uint64 {
	hi, lo := bits.Mul64(n, perMille)
	q, r := bits.Div64(hi, lo, 1000)
	if r > 0 {
		q++
	}
	return max(q, 1)
}

// atRank is the value of the given rank, counted from 1.
func (l *Latency) atRank(rank uint64) uint64 {
	var seen uint64
	for _, b := range l.Buckets {
		seen = addSat(seen, b.Count)
		if seen >= rank {
			return min(max(b.last(), l.Min), l.Max)
		}
	}
	return l.Max
}

// Merge adds the population of o to l: buckets, Min, Max and Sum, exactly.
// Samples are not merged, and the percentiles wait for Summarize.
func (l *Latency) Merge(o *Latency) {
	if len(o.Buckets) == 0 {
		return
	}
	if len(l.Buckets) == 0 {
		l.Min = math.MaxUint64
	}
	l.Min = min(l.Min, o.Min)
	l.Max = max(l.Max, o.Max)
	l.Sum = addSat(l.Sum, o.Sum)
	l.Buckets = mergeBuckets(l.Buckets, o.Buckets)
}

// mergeBuckets merges two ascending lists; equal Lo add up.
func mergeBuckets(a, b []Bucket) []Bucket {
	out := make([]Bucket, 0, max(len(a), len(b))+8)
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Lo < b[0].Lo:
			out, a = append(out, a[0]), a[1:]
		case a[0].Lo > b[0].Lo:
			out, b = append(out, b[0]), b[1:]
		default:
			out = append(out, Bucket{Lo: a[0].Lo, Width: max(a[0].Width, b[0].Width), Count: addSat(a[0].Count, b[0].Count)})
			a, b = a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// addSat adds counters that come from outside: a lie ends at the largest number
// instead of at a small one.
func addSat(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

// namedLatency is one of the populations of a worker or group.
type namedLatency struct {
	name string
	lat  *Latency
}

// latencies of a phase: it has no iteration cost.
func (p *PhaseSlice) latencies() [3]namedLatency {
	return [3]namedLatency{{"wake_latency_ns", p.WakeLatency}, {"iteration_cost_ns", nil}, {"timer_latency_ns", p.TimerLatency}}
}

func (w *Worker) latencies() [3]namedLatency {
	return [3]namedLatency{
		{"wake_latency_ns", w.WakeLatency}, {"iteration_cost_ns", w.IterationCost}, {"timer_latency_ns", w.TimerLatency},
	}
}

// Percentile is the bounds of the nearest-rank percentile, in thousandths: the
// edges of its bucket, within Min and Max. Of 1000 both are Max.
func (l *Latency) Percentile(perMille int) (lo, hi uint64) {
	if perMille >= 1000 {
		return l.Max, l.Max
	}
	want := rank(l.Count, uint64(max(perMille, 0)))
	hi = l.atRank(want)
	lo = hi
	for _, b := range l.Buckets {
		if b.Lo <= hi {
			lo = max(b.Lo, l.Min)
		}
	}
	return lo, hi
}

// CV is standard deviation ÷ mean of the population, each value taken as the
// middle of its bucket; false if the mean is 0.
func (l *Latency) CV() (cv float64, ok bool) {
	var n, sum, squares float64
	middle := func(b Bucket) float64 { return float64(b.Lo) + float64(b.Width-1)/2 }
	for _, b := range l.Buckets {
		n += float64(b.Count)
		sum += float64(b.Count) * middle(b)
	}
	if sum == 0 {
		return 0, false
	}
	mean := sum / n
	for _, b := range l.Buckets {
		d := middle(b) - mean
		squares += float64(b.Count) * d * d
	}
	return math.Sqrt(squares/n) / mean, true
}
