package check

import (
	"fmt"
	"math"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// evaluation is the checks of one scope.
type evaluation struct {
	scope   scope
	unsound string // why a missed threshold of timing says nothing; "" if it does
	results []report.Check
}

// finding is what one threshold was held against.
type finding struct {
	value  float64
	missed bool
	why    string         // who missed it
	cannot string         // why there is no value; then the outcome is outcome
	as     report.Verdict // of cannot: Inconclusive if empty
}

func (e *evaluation) run() {
	c := e.scope.checks
	stuck := is(c.NotStuck)
	if is(c.ZeroProgress) || stuck && c.ZeroProgress == nil {
		e.add("zero_progress", 0, report.UnitWorkers, false, e.zeroProgress)
	}
	if limit := withDefault(c.MaxGap, stuck, spec.DefaultMaxGap); limit != nil {
		e.add("max_gap", float64(*limit), report.UnitNs, true, e.gap)
	}
	if limit := withDefault(c.MaxOffCPU, stuck, spec.DefaultMaxOffCPU); limit != nil {
		e.add("max_off_cpu_spread_pct", *limit, report.UnitPercent, true, e.offCPUSpread)
	}
	if is(c.Isolation) {
		e.add("isolation", 0, report.UnitWorkers, false, e.isolation)
	}
	for _, n := range []struct {
		name   string
		limit  *float64
		unit   string
		timing bool
		find   func(limit float64) finding
	}{
		{"max_throughput_cv", c.MaxWorkCV, "", true, e.throughputCV},
		{"min_work_rate", c.MinWorkRate, report.UnitPerSecond, true, e.workRate},
		{"min_iteration_rate", c.MinIterRate, report.UnitPerSecond, true, e.iterationRate},
		{"max_wake_latency_cv", c.MaxWakeCV, "", true, e.wakeCV},
		{"max_migration_ratio", c.MaxMigration, "", true, e.migrationRatio},
		{"min_page_locality", c.MinLocality, "", false, e.pageLocality},
		{"max_cross_node_migration_ratio", c.MaxCrossNode, "", false, e.crossNode},
	} {
		if n.limit != nil {
			e.add(n.name, *n.limit, n.unit, n.timing, n.find)
		}
	}
	e.latencies()
}

func is(b *bool) bool { return b != nil && *b }

func withDefault[T any](v *T, stuck bool, otherwise T) *T {
	if v == nil && stuck {
		return &otherwise
	}
	return v
}

// add holds one threshold against what find finds.
func (e *evaluation) add(name string, limit float64, unit string, timing bool, find func(limit float64) finding) {
	c := report.Check{Name: name, Scope: e.scope.name, Limit: limit, Unit: unit, Outcome: report.Pass}
	f := finding{cannot: "no worker has figures"}
	switch {
	case len(e.scope.members) == 0 && e.scope.asked == 0:
		f = finding{cannot: "it has no workers", as: report.Skip}
	case len(e.scope.members) > 0:
		f = find(limit)
	}
	c.Value = f.value
	switch {
	case f.cannot != "":
		if c.Outcome, c.Reason = f.as, f.cannot; f.as == "" {
			c.Outcome = report.Inconclusive
		}
	case f.missed && timing && e.unsound != "":
		c.Outcome = report.Inconclusive
		c.Reason = fmt.Sprintf("missed with %s, but this was %s", (&report.Check{Value: f.value, Unit: unit}).Figure(), e.unsound)
	case f.missed:
		c.Outcome, c.Reason = report.Fail, f.why
	}
	e.results = append(e.results, c)
}

// who names a worker within its scope.
func who(m *member) string {
	return fmt.Sprintf("worker %d of %s (tid %d)", m.w.Index, m.w.WorkType, m.w.TID)
}

func (e *evaluation) zeroProgress(float64) finding {
	return e.count(func(m *member) bool { return m.fig.WorkUnits == 0 }, func(m *member) string { return who(m) + " did no work" })
}

// count finds members that are not to be there.
func (e *evaluation) count(bad func(*member) bool, describe func(*member) string) (f finding) {
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if !bad(m) {
			continue
		}
		if f.value++; f.value == 1 {
			f.why = describe(m)
		}
	}
	f.missed = f.value > 0
	return f
}

func (e *evaluation) gap(limit float64) (f finding) {
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if v := float64(m.fig.MaxGapNs); v > f.value {
			f.value, f.why = v, fmt.Sprintf("%s had no turn for so long, on CPU %d", who(m), m.fig.MaxGapCPU)
		}
	}
	f.missed = f.value > limit
	return f
}

// one is for spreads that one worker has none of.
var one = finding{cannot: "one worker has no spread", as: report.Skip}

func (e *evaluation) offCPUSpread(limit float64) finding {
	if len(e.scope.members) < 2 {
		return one
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	var least, most *member
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if m.fig.WallNs == 0 {
			return finding{cannot: who(m) + " has no wall time"}
		}
		share := 100 * float64(m.fig.OffCPUNs) / float64(m.fig.WallNs)
		if share < lo {
			lo, least = share, m
		}
		if share > hi {
			hi, most = share, m
		}
	}
	return finding{value: hi - lo, missed: hi-lo > limit,
		why: fmt.Sprintf("%s was off the CPU for %.3g%% of its time, %s for %.3g%%", who(most), hi, who(least), lo)}
}

func (e *evaluation) isolation(float64) finding {
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if m.allowed == nil {
			return finding{cannot: "where " + who(m) + " may run is not known"}
		}
		if m.fig.CPUsUsed == "" {
			return finding{cannot: "where " + who(m) + " ran is not known"}
		}
	}
	return e.count(func(m *member) bool { return !parseCPUs(m.fig.CPUsUsed).within(m.allowed) }, func(m *member) string {
		return fmt.Sprintf("%s ran on CPUs %s, may use %s", who(m), m.fig.CPUsUsed, m.allowed)
	})
}

// rates is units of work per CPU second, of each worker.
func (e *evaluation) rates() (rates []float64, cannot string) {
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if m.fig.CPUNs == 0 {
			return nil, who(m) + " has no CPU time"
		}
		rates = append(rates, float64(m.fig.WorkUnits)/(float64(m.fig.CPUNs)/1e9))
	}
	return rates, ""
}

func (e *evaluation) throughputCV(limit float64) finding {
	if len(e.scope.members) < 2 {
		return one
	}
	rates, cannot := e.rates()
	if cannot != "" {
		return finding{cannot: cannot}
	}
	sum, squares := 0.0, 0.0
	for _, v := range rates {
		sum += v
	}
	mean := sum / float64(len(rates))
	if mean == 0 {
		return finding{cannot: "no worker did any work"}
	}
	for _, v := range rates {
		squares += (v - mean) * (v - mean)
	}
	cv := math.Sqrt(squares/float64(len(rates))) / mean
	return finding{value: cv, missed: cv > limit, why: fmt.Sprintf("mean %.4g units per CPU second over %d workers", mean, len(rates))}
}

func (e *evaluation) workRate(limit float64) finding {
	rates, cannot := e.rates()
	if cannot != "" {
		return finding{cannot: cannot}
	}
	return e.least(rates, limit)
}

func (e *evaluation) iterationRate(limit float64) finding {
	var rates []float64
	for i := range e.scope.members {
		m := &e.scope.members[i]
		if m.fig.WallNs == 0 {
			return finding{cannot: who(m) + " has no wall time"}
		}
		rates = append(rates, float64(m.fig.Iterations)/(float64(m.fig.WallNs)/1e9))
	}
	return e.least(rates, limit)
}

// least holds the least rate against a floor.
func (e *evaluation) least(rates []float64, limit float64) finding {
	at := 0
	for i, v := range rates {
		if v < rates[at] {
			at = i
		}
	}
	return finding{value: rates[at], missed: rates[at] < limit, why: who(&e.scope.members[at])}
}

func (e *evaluation) migrationRatio(limit float64) finding {
	migrations, iterations := 0.0, 0.0
	for i := range e.scope.members {
		migrations += float64(e.scope.members[i].fig.Migrations)
		iterations += float64(e.scope.members[i].fig.Iterations)
	}
	if iterations == 0 {
		return finding{cannot: "no worker ended an iteration"}
	}
	return finding{value: migrations / iterations, missed: migrations/iterations > limit,
		why: fmt.Sprintf("%.0f migrations in %.0f iterations", migrations, iterations)}
}

// latencies holds percentiles and maxima against their limits.
func (e *evaluation) latencies() {
	c := e.scope.checks
	for _, l := range []struct {
		name  string
		limit *spec.Duration
		rank  int // per mille; 1000 is the maximum
		kind  string
	}{
		{"max_p50_wake_latency", c.MaxWakeP50, 500, "wake"},
		{"max_p99_wake_latency", c.MaxWakeP99, 990, "wake"},
		{"max_p99_9_wake_latency", c.MaxWakeP999, 999, "wake"},
		{"max_wake_latency", c.MaxWake, 1000, "wake"},
		{"max_p99_timer_latency", c.MaxTimerP99, 990, "timer"},
	} {
		if l.limit != nil {
			e.add(l.name, float64(*l.limit), report.UnitNs, true, func(limit float64) finding { return e.percentile(l.kind, l.rank, limit) })
		}
	}
}

// pooled is the latencies of all workers together, or why there are none.
func (e *evaluation) pooled(kind string) (*report.Latency, finding) {
	pool := new(report.Latency)
	any := false
	for i := range e.scope.members {
		l := e.scope.members[i].fig.WakeLatency
		if kind == "timer" {
			l = e.scope.members[i].fig.TimerLatency
		}
		if l != nil {
			any = true
			pool.Merge(l)
		}
	}
	pool.Summarize()
	switch {
	case !any:
		return nil, finding{cannot: fmt.Sprintf("its work types record no %s latency", kind), as: report.Skip}
	case pool.Count == 0:
		return nil, finding{cannot: fmt.Sprintf("no %s latency was recorded", kind)}
	}
	return pool, finding{}
}

// percentile holds a nearest-rank percentile against its limit. The histogram
// knows it to a bucket: a limit inside that bucket is neither met nor missed.
func (e *evaluation) percentile(kind string, perMille int, limit float64) finding {
	pool, f := e.pooled(kind)
	if pool == nil {
		return f
	}
	lo, hi := pool.Percentile(perMille)
	f = finding{value: float64(hi), missed: float64(lo) > limit, why: fmt.Sprintf("of %d %s latencies", pool.Count, kind)}
	if float64(hi) > limit && !f.missed {
		f.cannot = fmt.Sprintf("it lies between %v and %v, and so does the limit", time.Duration(lo), time.Duration(hi))
	}
	return f
}

func (e *evaluation) wakeCV(limit float64) finding {
	pool, f := e.pooled("wake")
	if pool == nil {
		return f
	}
	cv, ok := pool.CV()
	if !ok {
		return finding{cannot: "the mean of the wake latencies is 0"}
	}
	return finding{value: cv, missed: cv > limit, why: fmt.Sprintf("of %d wake latencies, mean %v", pool.Count, time.Duration(pool.Mean))}
}
