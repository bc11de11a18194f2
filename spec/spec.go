// Package spec is the workload spec: its types, how they are read from YAML or
// JSON, their defaults and their validation. It is plain data and imports
// nothing else of guestinit; what a work type accepts is worker's to say, what
// the pipeline admits is spawn's.
package spec

// Version is the spec version this package reads.
const Version = 1

// Spec is one workload: groups of workers that run side by side for Duration, in
// cgroups or outside of them, or steps of such groups one after the other.
type Spec struct {
	Version   int      `json:"version"`              // 1
	Name      string   `json:"name,omitempty"`       // for people; default "workload"
	Duration  Duration `json:"duration,omitempty"`   // of the work loops; default 5s, 1ms to 24h
	Deadline  Duration `json:"deadline,omitempty"`   // from opening the gate to the last report; default Duration + 30s
	CloneMode string   `json:"clone_mode,omitempty"` // fork (default) or thread
	Samples   bool     `json:"samples,omitempty"`    // keep raw samples of every latency in the report
	Checks    *Checks  `json:"checks,omitempty"`     // thresholds of every group

	Groups  []Group  `json:"groups,omitempty"`  // outside of all cgroups; all groups together are 1 to 1024
	Cgroups []Cgroup `json:"cgroups,omitempty"` // with groups in them; these and Groups are one step

	Backdrop  *Backdrop  `json:"backdrop,omitempty"` // only with Steps
	Steps     []Step     `json:"steps,omitempty"`    // in place of Groups and Cgroups
	Scheduler *Scheduler `json:"scheduler,omitempty"`
}

// Group is a number of workers that run the same work with the same set-up.
type Group struct {
	Name       string     `json:"name,omitempty"`        // default "gINDEX"
	Workers    int        `json:"workers,omitempty"`     // 1 to 100,000; a multiple of the work type's group size
	WorkersPct Percent    `json:"workers_pct,omitempty"` // in place of Workers: of the CPUs that the group may run on, rounded up
	Work       Work       `json:"work"`
	Affinity   *Affinity  `json:"affinity,omitempty"`   // absent: inherit
	Sched      *Sched     `json:"sched,omitempty"`      // absent: normal
	MemPolicy  *MemPolicy `json:"mem_policy,omitempty"` // absent: default
	Nice       *int       `json:"nice,omitempty"`       // −20 to 19; absent: untouched
	Comm       string     `json:"comm,omitempty"`       // 1 to 15 bytes
	Pcomm      string     `json:"pcomm,omitempty"`      // 1 to 15 bytes: one process of this name has all workers as its threads
	UID        *uint32    `json:"uid,omitempty"`
	GID        *uint32    `json:"gid,omitempty"`
	NUMANode   *int       `json:"numa_node,omitempty"` // pins to the node's CPUs; overrides affinity
	Checks     *Checks    `json:"checks,omitempty"`    // win over those of the spec
}

// Work names a work type and its parameters as the spec wrote them; package
// worker checks them against its table. In YAML and JSON the parameters stand
// beside type: {type: bursty, burst_duration: 10ms}.
type Work struct {
	Type   string
	Params map[string]any // string, bool, int64, uint64, float64, []any, map[string]any
}

// Sched is a scheduling policy. In YAML a bare string is a policy without
// parameters.
type Sched struct {
	Policy   string   `json:"policy"`             // normal, batch, idle, fifo, round_robin, deadline, ext
	Priority int      `json:"priority,omitempty"` // fifo, round_robin: 1 to 99
	Runtime  Duration `json:"runtime,omitempty"`  // deadline
	Deadline Duration `json:"deadline,omitempty"` // deadline
	Period   Duration `json:"period,omitempty"`   // deadline; 0 means the deadline
}

// MemPolicy is a memory policy as set_mempolicy(2) has it. In YAML a bare
// string is a mode without nodes.
type MemPolicy struct {
	Mode  string   `json:"mode"` // default, bind, preferred, interleave, local, preferred_many, weighted_interleave
	Nodes CPUList  `json:"nodes,omitempty"`
	Flags []string `json:"flags,omitempty"` // static_nodes, relative_nodes, numa_balancing
}
