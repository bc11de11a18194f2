package report

import "encoding/json"

// SchemaVersion is the version of both the wire and the JSON form. It grows
// when a field changes its meaning; new fields alone do not change it.
const SchemaVersion = 1

// Verdict is the outcome of a run.
type Verdict string

// The verdicts, from the one that wins over all others downwards.
const (
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
	Pass         Verdict = "pass"
	Skip         Verdict = "skip"
)

// Report is one whole run.
type Report struct {
	SchemaVersion int           `json:"schema_version"`
	Verdict       Verdict       `json:"verdict"`
	Failures      []string      `json:"failures,omitempty"` // why Verdict is not pass, one line each
	Notes         []string      `json:"notes,omitempty"`    // what the reader should know: soft failures, fallbacks, downgrades
	Checks        []Check       `json:"checks,omitempty"`   // thresholds of the spec and how they were met
	Run           Run           `json:"run"`
	Groups        []Group       `json:"groups"`
	Cgroups       []Group       `json:"cgroups,omitempty"` // the groups of each cgroup, pooled
	Phases        []PhaseGroups `json:"phases,omitempty"`  // the groups in each step
	Workers       []Worker      `json:"workers"`
}

// Run is what the workload ran on.
type Run struct {
	Name          string             `json:"name"`
	Version       string             `json:"guestinit_version"`
	KernelRelease string             `json:"kernel_release"`
	Machine       string             `json:"machine"` // uname -m
	KernelCmdline string             `json:"kernel_cmdline,omitempty"`
	Accelerator   string             `json:"accelerator"` // kvm, tcg,thread=single, tcg,thread=multi, none (local)
	QEMUVersion   string             `json:"qemu_version,omitempty"`
	Link          string             `json:"link"` // vhost-vsock, vhost-user-vsock, serial, none (local)
	Clocksource   string             `json:"clocksource"`
	CPUs          int                `json:"cpus"`              // online CPUs the workload saw
	NUMANodes     int                `json:"numa_nodes"`        // online NUMA nodes
	Spawner       string             `json:"spawner"`           // scheduling of the spawner's thread: "fifo:99", "nice:-20", "nice:0"
	CloneMode     string             `json:"clone_mode"`        // fork or thread
	BootMs        map[string]float64 `json:"boot_ms,omitempty"` // stage → milliseconds; see docs/architecture.md for the stages
	BootAttempts  int                `json:"boot_attempts,omitempty"`
	Phases        []Phase            `json:"phases,omitempty"`
	Topology      *Topology          `json:"topology,omitempty"`
	StealPct      float64            `json:"steal_pct"`     // of all CPU time between opening the gate and the request to stop: what the host took
	DurationMs    float64            `json:"duration_ms"`   // from opening the gate to the request to stop
	StartSkewNs   int64              `json:"start_skew_ns"` // from opening the gate to the last worker's first pass
	CollectMs     float64            `json:"collect_ms"`    // from the request to stop until the last worker was collected
	Scheduler     *Scheduler         `json:"scheduler,omitempty"`
	Programs      []Program          `json:"programs,omitempty"` // at most 256
	Spec          json.RawMessage    `json:"spec,omitempty"`     // the spec as the guest ran it
}

// Phase is one span of a run whose workers keep a PhaseSlice of it.
type Phase struct {
	Epoch   uint32            `json:"epoch"` // as in PhaseSlice
	Name    string            `json:"name"`
	StartNs int64             `json:"start_ns"`          // since opening the gate
	EndNs   int64             `json:"end_ns"`            // likewise
	Cpusets map[string]string `json:"cpusets,omitempty"` // cgroup → CPU list: all that its cpuset and those around it let it use in the phase
	Allowed map[string]string `json:"allowed,omitempty"` // group → CPU list: all that it might use in the phase, if an operation had moved it by then
}

// Topology is what the kernel told of the CPUs. CPU lists are of online CPUs.
type Topology struct {
	Nodes []TopologyNode `json:"numa_nodes"`
	LLCs  []string       `json:"llcs"`  // CPU list of each last-level cache
	Cores []string       `json:"cores"` // CPU list of each core: SMT siblings
}

// TopologyNode is a NUMA node.
type TopologyNode struct {
	ID        int    `json:"id"`
	CPUs      string `json:"cpus"`
	MemoryMiB int    `json:"memory_mib"` // 0 if not known
	Distances []int  `json:"distances"`  // to each node, in their order; 10 is local
}

// Group is the aggregate over the workers of one group. Rates are per second
// of wall time of the work loop; latencies pool the histograms of all workers.
type Group struct {
	Index          int      `json:"index"`
	Name           string   `json:"name"`
	WorkType       string   `json:"work_type"`
	Cgroup         string   `json:"cgroup,omitempty"` // that its workers ran in; "" for the spawner's own
	Step           int      `json:"step,omitempty"`   // its only one, from 1; 0 for a group that lives through all of them
	Workers        int      `json:"workers"`
	Completed      int      `json:"completed"`
	WorkUnits      uint64   `json:"work_units"`
	Iterations     uint64   `json:"iterations"`
	IterationsPerS float64  `json:"iterations_per_s"` // sum over the workers
	Migrations     uint64   `json:"migrations"`
	CPUsUsed       string   `json:"cpus_used"` // CPU list, union over the workers
	WallNs         uint64   `json:"wall_ns"`   // sum over the workers, as are all counters here
	CPUNs          uint64   `json:"cpu_ns"`
	OffCPUNs       uint64   `json:"off_cpu_ns"`
	RunDelayNs     uint64   `json:"run_delay_ns"`
	RunCount       uint64   `json:"run_count"` // times a worker was put on a CPU
	MaxGapNs       uint64   `json:"max_gap_ns"`
	WakeLatency    *Latency `json:"wake_latency_ns,omitempty"`
	IterationCost  *Latency `json:"iteration_cost_ns,omitempty"`
	TimerLatency   *Latency `json:"timer_latency_ns,omitempty"`
}

// Worker is the report of one worker: one per worker asked for, in order of
// group and index, whatever became of it.
type Worker struct {
	TID         int    `json:"tid"`
	GroupIndex  int    `json:"group_index"`
	Index       int    `json:"index"` // position within the group
	WorkType    string `json:"work_type"`
	IsMessenger bool   `json:"is_messenger,omitempty"`

	Completed bool      `json:"completed"`           // the worker committed its report itself
	Partial   bool      `json:"partial"`             // the figures are what a worker that did not commit had recorded
	ExitInfo  *ExitInfo `json:"exit_info,omitempty"` // set when Completed is false

	WorkUnits  uint64 `json:"work_units"`
	Iterations uint64 `json:"iterations"`
	WallNs     uint64 `json:"wall_ns"`    // of the work loop
	CPUNs      uint64 `json:"cpu_ns"`     // CLOCK_THREAD_CPUTIME_ID over the work loop
	OffCPUNs   uint64 `json:"off_cpu_ns"` // wall_ns − cpu_ns
	StartedNs  int64  `json:"started_ns"` // from opening the gate to the first pass

	Migrations    uint64      `json:"migrations"`
	MigrationList []Migration `json:"migration_list,omitempty"` // the first ones, at most 256
	CPUsUsed      string      `json:"cpus_used"`                // CPU list
	MaxGapNs      uint64      `json:"max_gap_ns"`               // longest time between two checkpoints of the loop
	MaxGapCPU     int         `json:"max_gap_cpu"`
	MaxGapAtNs    uint64      `json:"max_gap_at_ns"` // end of that gap, since the first pass

	Schedstat     Schedstat          `json:"schedstat"`
	NUMAPages     map[string]uint64  `json:"numa_pages,omitempty"`          // node → pages of the worker at the end
	NUMAMigrated  uint64             `json:"numa_pages_migrated,omitempty"` // system-wide numa_pages_migrated over the loop
	WakeLatency   *Latency           `json:"wake_latency_ns,omitempty"`
	IterationCost *Latency           `json:"iteration_cost_ns,omitempty"`
	TimerLatency  *Latency           `json:"timer_latency_ns,omitempty"`
	SoftErrors    map[string]string  `json:"soft_errors,omitempty"` // set-up step → errno text, for steps that failed and did not stop the worker
	Settings      map[string]Setting `json:"settings,omitempty"`    // policy, nice, affinity, mem_policy, comm, cgroup, uid, gid
	Phases        []PhaseSlice       `json:"phases,omitempty"`      // one per phase that began while the worker lived, in order

	Stdout *Output `json:"stdout,omitempty"` // of work type exec: what the program wrote
	Stderr *Output `json:"stderr,omitempty"`
}

// ExitInfo says how a worker that committed no report ended.
type ExitInfo struct {
	Kind   string   `json:"kind"`            // exited, signaled, timed_out, wait_failed, panicked
	Code   int      `json:"code"`            // exit status, for exited
	Signal int      `json:"signal"`          // signal number, for signaled
	Text   string   `json:"text,omitempty"`  // for people: signal name, fault address, wait error
	Stack  []string `json:"stack,omitempty"` // symbolised frames of the worker, innermost first
}

// The kinds of ExitInfo.
const (
	ExitExited     = "exited"
	ExitSignaled   = "signaled"
	ExitTimedOut   = "timed_out"
	ExitWaitFailed = "wait_failed"
	ExitPanicked   = "panicked"
)

// PhaseSlice is what a worker measured in one phase of a run. Its fields mean
// what those of Worker mean; all but its wall time are 0 for a worker that did
// not run in the phase.
type PhaseSlice struct {
	Epoch        uint32            `json:"epoch"` // 0 before the first step, k+1 in step k, 2^32-1 between steps
	WallNs       uint64            `json:"wall_ns"`
	CPUNs        uint64            `json:"cpu_ns"`
	OffCPUNs     uint64            `json:"off_cpu_ns"`
	WorkUnits    uint64            `json:"work_units"`
	Iterations   uint64            `json:"iterations"`
	Migrations   uint64            `json:"migrations"`
	CPUsUsed     string            `json:"cpus_used"`
	MaxGapNs     uint64            `json:"max_gap_ns"`
	MaxGapCPU    int               `json:"max_gap_cpu"`
	Schedstat    Schedstat         `json:"schedstat"`
	NUMAPages    map[string]uint64 `json:"numa_pages,omitempty"`
	NUMAMigrated uint64            `json:"numa_pages_migrated,omitempty"`
	WakeLatency  *Latency          `json:"wake_latency_ns,omitempty"`
	TimerLatency *Latency          `json:"timer_latency_ns,omitempty"`
}

// Setting is one attribute of a worker: what the spec asked for, empty if
// nothing, and what the kernel said it had before its first pass.
type Setting struct {
	Asked string `json:"asked,omitempty"`
	Got   string `json:"got"`
}

// Migration is one change of CPU that a checkpoint saw.
type Migration struct {
	_    struct{} `cbor:",toarray"`
	AtNs uint64   `json:"at_ns"` // since the first pass
	From int      `json:"from"`
	To   int      `json:"to"`
}

// Schedstat is the change of /proc/PID/schedstat over the work loop.
type Schedstat struct {
	CPUNs      uint64 `json:"cpu_ns"`
	RunDelayNs uint64 `json:"run_delay_ns"`
	RunCount   uint64 `json:"run_count"`
}

// Latency is one population of durations in nanoseconds. Min, Max, Mean and
// Count are exact; the percentiles come from Buckets over the whole population,
// never above Max or below Min.
type Latency struct {
	Count uint64  `json:"count"`
	Min   uint64  `json:"min"`
	P50   uint64  `json:"p50"`
	P90   uint64  `json:"p90"`
	P99   uint64  `json:"p99"`
	P999  uint64  `json:"p99_9"`
	Max   uint64  `json:"max"`
	Mean  float64 `json:"mean"`

	Sum     uint64  `json:"-" cbor:"sum"`
	Buckets Buckets `json:"buckets,omitempty"` // non-empty buckets, ascending; in JSON only when samples are asked for
	Samples Samples `json:"samples,omitempty"` // uniform sample of the population (Algorithm R), at most 100,000
}

// Bucket counts the values v with Lo ≤ v < Lo+Width. The widths follow a
// log-linear scheme of 32 buckets per power of two, so a value is known to 1/32.
type Bucket struct {
	Lo    uint64 `json:"lo_ns"`
	Width uint64 `json:"width_ns"`
	Count uint64 `json:"count"`
}
