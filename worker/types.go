package worker

import "time"

// Type is one work type.
type Type struct {
	Name    string // in specs
	Family  string // for listings
	Summary string // what one pass does and what it measures, for people
	Params  []Param

	// GroupSize is how many workers work together, given the parameters; nil
	// means each works alone. The number of workers of a group must be a
	// multiple of it.
	GroupSize func(p *[MaxParams]uint64) int
	Resource  Resource // what the workers of one set share

	Wake  bool // promises wake_latency_ns
	Cost  bool // promises iteration_cost_ns
	Timer bool // promises timer_latency_ns

	loop func(*Slab)
}

// Resource is what the spawner makes for each set of workers of a type.
type Resource int

// The shared resources.
const (
	NoResource Resource = iota
	FutexWord           // 4 bytes of shared memory
	PipePair            // two pipes between an even worker and the odd one after it
)

// Kind is the kind of a parameter's value.
type Kind int

// The kinds. Every value is a uint64 in the slab: a count, or nanoseconds.
const (
	Count Kind = iota
	Duration
	Enum // the index of a name in Values
)

// String is the kind's name in listings.
func (k Kind) String() string { return [...]string{"count", "duration", "enum"}[k] }

// Param is one parameter of a work type. Default, Min and Max are counts or
// nanoseconds.
type Param struct {
	Name    string
	Kind    Kind
	Default uint64
	Min     uint64
	Max     uint64
	Values  []string // of Enum
	Summary string
}

const (
	maxIters = 1_000_000_000
	maxSpan  = uint64(24 * time.Hour)
)

// Types lists all work types. A slab names its type by the index.
var Types = []Type{
	{
		Name: "spin_wait", Family: "cpu",
		Summary: "spin 1024 pauses; measures CPU time given, gaps and migrations",
		loop:    spinWait,
	},
	{
		Name: "yield_heavy", Family: "cpu",
		Summary: "sched_yield in a loop; measures the cost of the pick path",
		loop:    yieldHeavy,
	},
	{
		Name: "bursty", Family: "cpu",
		Summary: "spin for burst_duration, sleep for sleep_duration; wake latency is the whole sleep",
		Params: []Param{
			{Name: "burst_duration", Kind: Duration, Default: uint64(50 * time.Millisecond), Min: 1000, Max: maxSpan, Summary: "spinning per pass"},
			{Name: "sleep_duration", Kind: Duration, Default: uint64(100 * time.Millisecond), Min: 1000, Max: maxSpan, Summary: "sleeping per pass"},
		},
		Wake: true, loop: bursty,
	},
	{
		Name: "pipe_io", Family: "io",
		Summary: "pairs that spin and exchange one byte over two pipes; wake latency is the wait for the partner's byte",
		Params: []Param{
			{Name: "burst_iters", Kind: Count, Default: 1024, Min: 0, Max: maxIters, Summary: "pauses before each exchange"},
		},
		GroupSize: func(*[MaxParams]uint64) int { return 2 },
		Resource:  PipePair,
		Wake:      true, loop: pipeIO,
	},
	{
		Name: "futex_ping_pong", Family: "sync",
		Summary: "pairs that hand one futex word to and fro; wake latency is the wait for the own turn",
		Params: []Param{
			{Name: "spin_iters", Kind: Count, Default: 1024, Min: 0, Max: maxIters, Summary: "pauses before each hand-over"},
		},
		GroupSize: func(*[MaxParams]uint64) int { return 2 },
		Resource:  FutexWord,
		Wake:      true, loop: futexPingPong,
	},
	{
		Name: "mutex_contention", Family: "sync",
		Summary: "contenders share one futex lock; wake latency is each wait for it",
		Params: []Param{
			{Name: "contenders", Kind: Count, Default: 4, Min: 1, Max: 1024, Summary: "workers per lock"},
			{Name: "hold_iters", Kind: Count, Default: 256, Min: 0, Max: maxIters, Summary: "pauses while holding the lock"},
			{Name: "work_iters", Kind: Count, Default: 1024, Min: 0, Max: maxIters, Summary: "pauses before taking it"},
		},
		GroupSize: func(p *[MaxParams]uint64) int { return int(p[0]) },
		Resource:  FutexWord,
		Wake:      true, loop: mutexContention,
	},
	{
		Name: "timer_latency", Family: "timer",
		Summary: "sleep to absolute deadlines, interval apart, as cyclictest does; timer latency is how late each wake-up was",
		Params: []Param{
			{Name: "interval", Kind: Duration, Default: uint64(time.Millisecond), Min: 1000, Max: maxSpan, Summary: "between two deadlines"},
		},
		Timer: true, loop: timerLatency,
	},
	{
		Name: "fault_injection", Family: "lifecycle",
		Summary: "work for a while, then fail on purpose; for testing what a harness makes of it",
		Params: []Param{
			{Name: "kind", Kind: Enum, Values: faultKinds, Max: uint64(len(faultKinds) - 1), Summary: "how it fails; hang ignores the request to stop"},
			{Name: "after", Kind: Duration, Default: uint64(100 * time.Millisecond), Max: maxSpan, Summary: "spinning before it"},
			{Name: "code", Kind: Count, Default: 3, Max: 255, Summary: "exit status, for exit"},
		},
		loop: faultInjection,
	},
}
