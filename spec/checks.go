package spec

import "time"

// Checks are the thresholds that a report is judged by. What is absent is not
// checked. Those of a group win over those of what is around it, see Merge. A
// rate or a ratio whose denominator is zero is inconclusive.
type Checks struct {
	NotStuck      *bool     `json:"not_stuck,omitempty"`              // zero_progress, max_gap 2s and max_off_cpu_spread_pct 15, where they are absent
	ZeroProgress  *bool     `json:"zero_progress,omitempty"`          // no worker without a unit of work
	MaxGap        *Duration `json:"max_gap,omitempty"`                // longest time between two checkpoints of a worker
	MaxOffCPU     *float64  `json:"max_off_cpu_spread_pct,omitempty"` // 0 to 100; most less least share of time off the CPU, over the workers
	Isolation     *bool     `json:"isolation,omitempty"`              // workers run only on CPUs of their cpuset or affinity
	MaxWorkCV     *float64  `json:"max_throughput_cv,omitempty"`      // spread of work per CPU second over the workers: deviation ÷ mean
	MinWorkRate   *float64  `json:"min_work_rate,omitempty"`          // units of work per CPU second, each worker
	MinIterRate   *float64  `json:"min_iteration_rate,omitempty"`     // iterations per second, each worker
	MaxWakeP50    *Duration `json:"max_p50_wake_latency,omitempty"`
	MaxWakeP99    *Duration `json:"max_p99_wake_latency,omitempty"`
	MaxWakeP999   *Duration `json:"max_p99_9_wake_latency,omitempty"`
	MaxWake       *Duration `json:"max_wake_latency,omitempty"`
	MaxWakeCV     *float64  `json:"max_wake_latency_cv,omitempty"`            // deviation ÷ mean of the wake latencies of all workers
	MaxTimerP99   *Duration `json:"max_p99_timer_latency,omitempty"`          // of timed sleeps
	MaxMigration  *float64  `json:"max_migration_ratio,omitempty"`            // migrations ÷ iterations
	MinLocality   *float64  `json:"min_page_locality,omitempty"`              // 0 to 1; share of pages on the nodes where they belong
	MaxCrossNode  *float64  `json:"max_cross_node_migration_ratio,omitempty"` // pages migrated between nodes ÷ pages
	MaxSteal      *float64  `json:"max_steal_pct,omitempty"`                  // 0 to 100, default 2: more CPU time stolen by the host makes timing unsound
	UnsoundTiming string    `json:"unsound_timing,omitempty"`                 // inconclusive (default) or enforce
}

// What a failed check of timing comes to where time is not to be trusted, as
// Checks.UnsoundTiming names it: under emulation, or with much time stolen by
// the host.
const (
	TimingInconclusive = "inconclusive"
	TimingEnforce      = "enforce"
)

// What NotStuck stands for, and the default of MaxSteal.
const (
	DefaultMaxGap    = Duration(2 * time.Second)
	DefaultMaxOffCPU = 15.0
	DefaultMaxSteal  = 2.0
)

// Merge returns the thresholds of c with those that over sets in their place.
// Both may be nil; the result is nil if both are.
func (c *Checks) Merge(over *Checks) *Checks {
	if c == nil {
		c, over = over, nil
	}
	if c == nil {
		return nil
	}
	m := *c
	if over == nil {
		return &m
	}
	for _, p := range []struct{ to, from **bool }{
		{&m.NotStuck, &over.NotStuck}, {&m.ZeroProgress, &over.ZeroProgress}, {&m.Isolation, &over.Isolation},
	} {
		set(p.to, *p.from)
	}
	to, from := m.durations(), over.durations()
	for i := range to {
		set(to[i].at, *from[i].at)
	}
	numbers, others := m.numbers(), over.numbers()
	for i := range numbers {
		set(numbers[i].at, *others[i].at)
	}
	if over.UnsoundTiming != "" {
		m.UnsoundTiming = over.UnsoundTiming
	}
	return &m
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// checkDuration and checkNumber are thresholds by name.
type checkDuration struct {
	name string
	at   **Duration
}

type checkNumber struct {
	name string
	max  float64
	at   **float64
}

func (c *Checks) durations() []checkDuration {
	return []checkDuration{
		{"max_gap", &c.MaxGap},
		{"max_p50_wake_latency", &c.MaxWakeP50},
		{"max_p99_wake_latency", &c.MaxWakeP99},
		{"max_p99_9_wake_latency", &c.MaxWakeP999},
		{"max_wake_latency", &c.MaxWake},
		{"max_p99_timer_latency", &c.MaxTimerP99},
	}
}

// maxThreshold bounds rates and ratios; every finite figure of a report is below.
const maxThreshold = 1e18

func (c *Checks) numbers() []checkNumber {
	return []checkNumber{
		{"max_off_cpu_spread_pct", 100, &c.MaxOffCPU},
		{"max_throughput_cv", maxThreshold, &c.MaxWorkCV},
		{"min_work_rate", maxThreshold, &c.MinWorkRate},
		{"min_iteration_rate", maxThreshold, &c.MinIterRate},
		{"max_wake_latency_cv", maxThreshold, &c.MaxWakeCV},
		{"max_migration_ratio", maxThreshold, &c.MaxMigration},
		{"min_page_locality", 1, &c.MinLocality},
		{"max_cross_node_migration_ratio", maxThreshold, &c.MaxCrossNode},
		{"max_steal_pct", 100, &c.MaxSteal},
	}
}

// checks reads thresholds.
func (d *decoder) checks(n *node, path string) *Checks {
	c := new(Checks)
	flag := func(to **bool) func(*node, string) {
		return func(n *node, path string) {
			*to = new(bool)
			d.boolean(*to)(n, path)
		}
	}
	fields := []field{
		{"not_stuck", flag(&c.NotStuck)},
		{"zero_progress", flag(&c.ZeroProgress)},
		{"isolation", flag(&c.Isolation)},
		{"unsound_timing", d.text(&c.UnsoundTiming)},
	}
	for _, f := range c.durations() {
		fields = append(fields, field{f.name, func(n *node, path string) {
			*f.at = new(Duration)
			d.duration(*f.at)(n, path)
		}})
	}
	for _, f := range c.numbers() {
		fields = append(fields, field{f.name, d.float(0, f.max, func(v float64) { *f.at = &v })})
	}
	d.object(n, path, fields...)
	return c
}

func (c *checker) checks(path string, k *Checks) {
	for _, f := range k.durations() {
		if v := *f.at; v != nil && (*v <= 0 || *v > MaxDeadline) {
			c.errorf(path+"."+f.name, "%s is out of range; above 0, at most %s", *v, MaxDeadline)
		}
	}
	for _, f := range k.numbers() {
		if v := *f.at; v != nil && !(*v >= 0 && *v <= f.max) {
			c.errorf(path+"."+f.name, "%g is out of range; 0 to %g", *v, f.max)
		}
	}
	if k.UnsoundTiming != "" {
		c.oneOf(path+".unsound_timing", k.UnsoundTiming, TimingInconclusive, TimingEnforce)
	}
}
