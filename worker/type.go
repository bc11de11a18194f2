package worker

import (
	"slices"
	"time"
)

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

	Resource Resource // what the spawner makes for the workers
	// Region is the bytes of memory that the workers of a set share, for
	// SharedMemory; nil means one futex word.
	Region func(p *[MaxParams]uint64) uintptr
	Open   int // open(2) flags of a BackingFile, beside O_RDWR

	Wake  bool // promises wake_latency_ns
	Cost  bool // promises iteration_cost_ns
	Timer bool // promises timer_latency_ns
	// Wakes tells whether the worker at a position of its set records wake
	// latencies; nil means that all do, if Wake.
	Wakes func(p *[MaxParams]uint64, pos int) bool

	// Urgent tells whether workers may give themselves real-time priority 99,
	// which is that of the thread that is to stop them; nil means never.
	Urgent func(p *[MaxParams]uint64) bool

	// Why a way to be born is refused, and what to use; empty where it is not.
	RefuseFork, RefuseThread, RefuseContainer string

	check func(in *Instance) error // what ranges alone do not say; nil for nothing
	loop  func(*Slab)
}

// NeedsParams tells whether the type has a parameter without a default.
func (t *Type) NeedsParams() bool {
	return slices.ContainsFunc(t.Params, func(p Param) bool { return p.Required })
}

// Resource is what the spawner makes for the workers of a group, before birth,
// and removes after.
type Resource int

// The resources.
const (
	NoResource   Resource = iota
	SharedMemory          // a region per set of workers
	PipePair              // two pipes between an even worker and the odd one after it
	PipeRing              // a pipe per stage of a set, and a region; the region alone where !UsesRing
	BackingFile           // a file or a part of one per worker, its path in the first parameter
	ScratchFile           // an empty file per worker, where PhasesUseFile
	NodeCPUs              // a NodeTable for all workers
	EventPoll             // an eventfd and an epoll instance that watches it per set
	CgroupLeaves          // empty cgroups that all workers share
	CgroupTarget          // a cgroup that all workers share
	ExecProgram           // a Program, its standard input and a pipe for each of its outputs
)

var resourceNames = [...]string{"", "shared memory", "pipes", "pipes", "backing file", "scratch file", "node table",
	"eventfd and epoll instance", "cgroups", "cgroup", "pipes for its outputs"}

// String is the resource's name in listings; none is empty.
func (r Resource) String() string { return resourceNames[r] }

// Kind is the kind of a parameter's value.
type Kind int

// The kinds. Every value is a uint64 in the slab: a count, nanoseconds, an
// index, a bit mask. Phases takes several slots; Text, Texts and Pairs take
// none, the spawner resolves them.
const (
	Count Kind = iota
	Duration
	Enum   // the index of a name in Values
	Bool   // 0 or 1
	Nodes  // a bit per NUMA node
	Text   // a path or a name; Instance.Texts has it
	Phases // of sequence: their number, then each; the last parameter of its type
	Texts  // a list of texts, Max at most; Instance.Lists has it
	Pairs  // texts by name, Max at most; Instance.Lists has them as NAME=TEXT
)

var kindNames = [...]string{"count", "duration", "enum", "bool", "nodes", "text", "phases", "list of texts", "texts by name"}

// String is the kind's name in listings.
func (k Kind) String() string { return kindNames[k] }

// Param is one parameter of a work type. Default, Min and Max are counts or
// nanoseconds.
type Param struct {
	Name     string
	Kind     Kind
	Default  uint64
	Min      uint64
	Max      uint64
	Values   []string // of Enum
	Phases   []uint64 // the default of Phases
	Text     string   // the default of Text
	Required bool     // there is no default
	Summary  string
}

const (
	maxIters = 1_000_000_000
	maxSpan  = uint64(24 * time.Hour)
	maxKiB   = 16 << 20 // 16 GiB
	maxSet   = 1024     // workers of one set
	maxDepth = 65536    // slots of a queue

	usec = uint64(time.Microsecond)
	msec = uint64(time.Millisecond)
)

// The functions of the table: sizes of sets and regions, and roles.

func pairs(*[MaxParams]uint64) int              { return 2 }
func firstParam(p *[MaxParams]uint64) int       { return int(p[0]) }
func firstPlusOne(p *[MaxParams]uint64) int     { return int(p[0]) + 1 }
func firstTwo(p *[MaxParams]uint64) int         { return int(p[0] + p[1]) }
func firstThree(p *[MaxParams]uint64) int       { return int(p[0] + p[1] + p[2]) }
func notFirst(_ *[MaxParams]uint64, i int) bool { return i != 0 }

// notProducer is for the roles of which the first parameter's number produce.
func notProducer(p *[MaxParams]uint64, pos int) bool { return uint64(pos) >= p[0] }

// notMedium is for those of priority_inversion that take the lock.
func notMedium(p *[MaxParams]uint64, pos int) bool {
	return uint64(pos) < p[0] || uint64(pos) >= p[0]+p[1]
}

func queueBytes(p *[MaxParams]uint64) uintptr { return queueHead + uintptr(p[4])*8 }
func fanOutBytes(p *[MaxParams]uint64) uintptr {
	return fanOutStamps + uintptr(p[0]+1)*8
}
func always(*[MaxParams]uint64) bool      { return true }
func thirdIs99(p *[MaxParams]uint64) bool { return p[2] == 99 }
func twoWords(*[MaxParams]uint64) uintptr { return 8 }

// attachWakes: the worker waits for children itself only with reap waitpid.
func attachWakes(p *[MaxParams]uint64, _ int) bool { return p[1] == reapByWait }
