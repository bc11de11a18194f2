package spec

import "time"

// Scheduler is a sched_ext scheduler program that runs beside the workload.
type Scheduler struct {
	Path string   `json:"path"` // where the workload runs
	Args []string `json:"args,omitempty"`
}

// Backdrop is what lives through all steps. It is set up before the first one and
// collected after the last.
type Backdrop struct {
	Cgroups  []Cgroup  `json:"cgroups,omitempty"`
	Groups   []Group   `json:"groups,omitempty"` // outside of all cgroups
	Programs []Program `json:"programs,omitempty"`
	Ops      []Op      `json:"ops,omitempty"` // once, when all of it runs
}

// Step is a time with a set-up of its own: cgroups and groups are set up and
// started, then come the ops, then the hold, which is the step's phase. All that
// the step made goes with it.
type Step struct {
	Name     string     `json:"name,omitempty"`      // default "stepINDEX"
	Checks   *Checks    `json:"checks,omitempty"`    // of all that runs in it; win over those of the spec and the backdrop
	ChecksOf []ChecksOf `json:"checks_of,omitempty"` // of a part of what runs in it; win over all others
	Cgroups  []Cgroup   `json:"cgroups,omitempty"`
	Groups   []Group    `json:"groups,omitempty"` // outside of all cgroups
	Ops      []Op       `json:"ops,omitempty"`    // once, or in every turn of a loop
	Hold     *Hold      `json:"hold,omitempty"`   // absent: an equal share of what other steps leave of the duration
}

// ChecksOf is thresholds of one cgroup or of one group in a step. One of Cgroup
// and Group is set.
type ChecksOf struct {
	Cgroup string  `json:"cgroup,omitempty"` // path; with those inside
	Group  string  `json:"group,omitempty"`  // by itself
	Checks *Checks `json:"checks"`
}

// Hold is how long a step lasts once it is set up. At most one of Fraction and
// Fixed is set; with neither the step has an equal share of what others leave.
type Hold struct {
	Fraction float64   `json:"fraction,omitempty"` // of the spec's duration, above 0 to 1
	Fixed    *Duration `json:"fixed,omitempty"`    // may be 0
	Loop     *Loop     `json:"loop,omitempty"`     // do the ops again and again
}

// Loop has a step do its ops in every interval of its hold, not once before it.
type Loop struct {
	Interval Duration `json:"interval"` // 1ms or more
}

// Op is one operation on what runs: exactly one field is set. Cgroups are named
// by their path, "outer/inner".
type Op struct {
	AddCgroup    *Cgroup      `json:"add_cgroup,omitempty"` // its name may be a path below one that exists
	RemoveCgroup string       `json:"remove_cgroup,omitempty"`
	StopCgroup   string       `json:"stop_cgroup,omitempty"` // stops and collects the groups in it
	Freeze       string       `json:"freeze,omitempty"`
	Thaw         string       `json:"thaw,omitempty"`
	SetCpuset    *SetCpuset   `json:"set_cpuset,omitempty"`
	ClearCpuset  string       `json:"clear_cpuset,omitempty"`
	SwapCpusets  []string     `json:"swap_cpusets,omitempty"` // two cgroups
	Spawn        *Spawn       `json:"spawn,omitempty"`
	SetAffinity  *SetAffinity `json:"set_affinity,omitempty"`
	MoveTasks    *MoveTasks   `json:"move_tasks,omitempty"`
	RunProgram   *Program     `json:"run_program,omitempty"`
	WaitProgram  *WaitProgram `json:"wait_program,omitempty"`
	KillProgram  string       `json:"kill_program,omitempty"`
}

// SetCpuset gives a cgroup another cpuset.
type SetCpuset struct {
	Cgroup string  `json:"cgroup"`
	Cpuset *Cpuset `json:"cpuset"`
}

// Spawn starts groups in a cgroup that is there, or outside of all.
type Spawn struct {
	Cgroup string  `json:"cgroup,omitempty"`
	Groups []Group `json:"groups"`
}

// SetAffinity moves the workers of a group to other CPUs.
type SetAffinity struct {
	Group    string    `json:"group"`
	Affinity *Affinity `json:"affinity,omitempty"` // absent: every CPU
}

// MoveTasks moves all processes of one cgroup to another.
type MoveTasks struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Program is a program that runs beside the workers. The first 40 and the last 16 KiB of what
// it writes go to the report.
type Program struct {
	Name    string   `json:"name,omitempty"` // default: the last element of the path
	Path    string   `json:"path"`           // absolute, where the workload runs
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`      // KEY=VALUE, added to what guestinit has itself
	Cgroup  string   `json:"cgroup,omitempty"`   // absent: outside of all
	MayFail bool     `json:"may_fail,omitempty"` // an exit status other than 0 is noted, not a failure
}

// WaitProgram waits for the end of a program.
type WaitProgram struct {
	Program string   `json:"program"`
	Timeout Duration `json:"timeout,omitempty"` // default 10s, at most 1h; then the program is killed and the step fails
}

// Ranges of scenarios.
const (
	MaxSteps           = 256
	MaxCgroups         = 512 // of all steps together
	MaxCgroupDepth     = 8
	MaxOps             = 4096 // of all steps together
	MaxPrograms        = 64   // of all steps together
	MaxProgramWords    = 256  // args and env each
	MaxProgramText     = 4096 // bytes of a path, an argument, a variable
	DefaultWaitProgram = Duration(10 * time.Second)
	MaxWaitProgram     = Duration(time.Hour)
	StepSlack          = Duration(5 * time.Second) // what the default deadline adds for each step after the first
)

// Kind is the key of the operation: "add_cgroup"; "" if none is set.
func (o *Op) Kind() string {
	for _, f := range o.fields() {
		if f.set {
			return f.name
		}
	}
	return ""
}

// opField tells whether one field of an Op is set.
type opField struct {
	name string
	set  bool
}

func (o *Op) fields() []opField {
	return []opField{
		{"add_cgroup", o.AddCgroup != nil}, {"remove_cgroup", o.RemoveCgroup != ""}, {"stop_cgroup", o.StopCgroup != ""},
		{"freeze", o.Freeze != ""}, {"thaw", o.Thaw != ""},
		{"set_cpuset", o.SetCpuset != nil}, {"clear_cpuset", o.ClearCpuset != ""}, {"swap_cpusets", len(o.SwapCpusets) > 0},
		{"spawn", o.Spawn != nil}, {"set_affinity", o.SetAffinity != nil}, {"move_tasks", o.MoveTasks != nil},
		{"run_program", o.RunProgram != nil}, {"wait_program", o.WaitProgram != nil}, {"kill_program", o.KillProgram != ""},
	}
}

// Holds is how long each step lasts, in order. A spec without steps is one that
// lasts its whole duration.
func (s *Spec) Holds() []time.Duration {
	if len(s.Steps) == 0 {
		return []time.Duration{time.Duration(s.Duration)}
	}
	holds := make([]time.Duration, len(s.Steps))
	left, sharing := time.Duration(s.Duration), 0
	for i := range s.Steps {
		if d, ok := s.Steps[i].Hold.length(s.Duration); ok {
			holds[i] = d
			left -= d
		} else {
			holds[i] = -1
			sharing++
		}
	}
	for i := range holds {
		if holds[i] < 0 {
			holds[i] = max(left, 0) / time.Duration(sharing)
		}
	}
	return holds
}

// length is how long the hold says it lasts; false if it leaves that to others.
func (h *Hold) length(total Duration) (time.Duration, bool) {
	switch {
	case h == nil:
		return 0, false
	case h.Fixed != nil:
		return time.Duration(*h.Fixed), true
	case h.Fraction != 0:
		return time.Duration(h.Fraction * float64(total)), true
	}
	return 0, false
}
