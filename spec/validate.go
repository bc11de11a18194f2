package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Ranges of a spec.
const (
	MinDuration     = Duration(time.Millisecond)
	MaxDuration     = Duration(24 * time.Hour)
	MaxDeadline     = MaxDuration + Duration(time.Hour)
	MaxGroups       = 1024
	MaxGroupWorkers = 100_000
	MaxWorkers      = 100_000          // of all groups together
	MaxWorkersPct   = Percent(100_000) // ten workers per CPU
	MaxNUMANode     = 63               // what workers keep count of
	MaxNameLen      = 64
	MaxCommLen      = 15 // TASK_COMM_LEN − 1
)

// Defaults of a spec.
const (
	DefaultName     = "workload"
	DefaultDuration = Duration(5 * time.Second)
	DeadlineSlack   = Duration(30 * time.Second) // what the default deadline adds to the duration
)

// Clone modes.
const (
	Fork   = "fork"
	Thread = "thread"
)

// Scheduling policies, as Sched.Policy names them.
const (
	SchedNormal     = "normal"
	SchedBatch      = "batch"
	SchedIdle       = "idle"
	SchedFIFO       = "fifo"
	SchedRoundRobin = "round_robin"
	SchedDeadline   = "deadline"
	SchedExt        = "ext"
)

// Memory policies, as MemPolicy.Mode names them.
const (
	MemDefault            = "default"
	MemBind               = "bind"
	MemPreferred          = "preferred"
	MemInterleave         = "interleave"
	MemLocal              = "local"
	MemPreferredMany      = "preferred_many"
	MemWeightedInterleave = "weighted_interleave"
)

// Flags of a memory policy, as MemPolicy.Flags names them.
const (
	MemStaticNodes   = "static_nodes"
	MemRelativeNodes = "relative_nodes"
	MemNUMABalancing = "numa_balancing"
)

// SetDefaults fills in what the spec left out: name, duration, deadline,
// clone_mode, the names of groups, steps and programs, the bounds of waits, and
// what groups inherit from their cgroups.
func (s *Spec) SetDefaults() {
	if s.Name == "" {
		s.Name = DefaultName
	}
	if s.Duration == 0 {
		s.Duration = DefaultDuration
	}
	if s.Deadline == 0 && s.Duration > 0 && s.Duration <= MaxDuration {
		s.Deadline = s.Duration + DeadlineSlack + StepSlack*Duration(min(max(len(s.Steps)-1, 0), MaxSteps))
		s.Deadline = min(s.Deadline, MaxDeadline)
	}
	if s.CloneMode == "" {
		s.CloneMode = Fork
	}
	for i := range s.Steps {
		if s.Steps[i].Name == "" {
			s.Steps[i].Name = fmt.Sprintf("step%d", i)
		}
	}
	n := 0
	s.visit(visitor{
		group: func(g Placed, inherited Defaults) {
			if g.Name == "" {
				g.Name = fmt.Sprintf("g%d", n)
			}
			n++
			g.inherit(inherited)
		},
		program: func(p *Program, _ string) { p.setDefaults() },
		op: func(o *Op, _ string) {
			if o.RunProgram != nil {
				o.RunProgram.setDefaults()
			}
			if o.WaitProgram != nil && o.WaitProgram.Timeout == 0 {
				o.WaitProgram.Timeout = DefaultWaitProgram
			}
		},
	})
}

func (p *Program) setDefaults() {
	if p.Name == "" && p.Path != "" {
		p.Name = path.Base(p.Path)
	}
}

// Validate checks everything that needs neither the topology of a machine nor
// the table of work types. The errors are joined, each an *Error, at most 20.
func (s *Spec) Validate() error {
	errs := s.check()
	for _, e := range errs {
		e.Name = "spec"
	}
	return joinErrors(errs)
}

// checker collects errors.
type checker struct{ errs []*Error }

func (c *checker) errorf(path, format string, args ...any) {
	c.errs = append(c.errs, &Error{Path: path, Msg: fmt.Sprintf(format, args...)})
}

// oneOf checks that v is one of names.
func (c *checker) oneOf(path, v string, names ...string) bool {
	if slices.Contains(names, v) {
		return true
	}
	if v == "" {
		c.errorf(path, "is missing; one of %s", strings.Join(names, ", "))
		return false
	}
	c.errorf(path, "unknown %s%s", quote(v), suggest(v, names))
	return false
}

func (c *checker) name(path, v string) {
	if v == "" || len(v) > MaxNameLen || strings.IndexFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		c.errorf(path, "%s is no name; 1 to %d bytes of printable text", quote(v), MaxNameLen)
	}
}

func (s *Spec) check() []*Error {
	c := new(checker)
	switch {
	case s.Version == 0:
		c.errorf("version", "is missing; write version: %d", Version)
	case s.Version != Version:
		c.errorf("version", "%d is not known; this guestinit reads version %d", s.Version, Version)
	}
	c.name("name", s.Name)
	if s.Duration < MinDuration || s.Duration > MaxDuration {
		c.errorf("duration", "%s is out of range; %s to %s", s.Duration, MinDuration, MaxDuration)
	} else if s.Deadline < s.Duration || s.Deadline > MaxDeadline {
		c.errorf("deadline", "%s is out of range; from the duration, %s, to %s", s.Deadline, s.Duration, MaxDeadline)
	}
	c.oneOf("clone_mode", s.CloneMode, Fork, Thread)
	if s.Checks != nil {
		c.checks("checks", s.Checks)
	}
	c.scenario(s)
	return c.errs
}

func (c *checker) group(path string, g *Group) {
	c.name(path+".name", g.Name)
	switch {
	case g.Workers != 0 && g.WorkersPct != 0:
		c.errorf(path+".workers_pct", "cannot stand beside workers; keep one")
	case g.WorkersPct < 0 || g.WorkersPct > MaxWorkersPct:
		c.errorf(path+".workers_pct", "%s is out of range; above 0 to %s", g.WorkersPct, MaxWorkersPct)
	case g.WorkersPct != 0:
	case g.Workers == 0:
		c.errorf(path+".workers", "is missing or 0; 1 to %d", MaxGroupWorkers)
	case g.Workers < 0 || g.Workers > MaxGroupWorkers:
		c.errorf(path+".workers", "%d is out of range; 1 to %d", g.Workers, MaxGroupWorkers)
	}
	if g.Work.Type == "" {
		c.errorf(path+".work.type", "is missing; write work: spin_wait, or work: {type: bursty, burst_duration: 10ms}")
	}
	c.attributes(path, g)
}

// attributes checks what a group may inherit as well.
func (c *checker) attributes(path string, g *Group) {
	if g.Affinity != nil {
		c.affinity(path+".affinity", g.Affinity)
	}
	if g.Sched != nil {
		c.sched(path+".sched", g.Sched)
	}
	if g.MemPolicy != nil {
		c.memPolicy(path+".mem_policy", g.MemPolicy)
	}
	if g.Nice != nil && (*g.Nice < -20 || *g.Nice > 19) {
		c.errorf(path+".nice", "%d is out of range; -20 to 19", *g.Nice)
	}
	for _, name := range []struct{ field, value string }{{"comm", g.Comm}, {"pcomm", g.Pcomm}} {
		if len(name.value) > MaxCommLen || strings.ContainsRune(name.value, 0) {
			c.errorf(path+"."+name.field, "%s is no task name; 1 to %d bytes without NUL", quote(name.value), MaxCommLen)
		}
	}
	if g.Checks != nil {
		c.checks(path+".checks", g.Checks)
	}
	if g.NUMANode != nil && (*g.NUMANode < 0 || *g.NUMANode > MaxNUMANode) {
		c.errorf(path+".numa_node", "%d is out of range; 0 to %d", *g.NUMANode, MaxNUMANode)
	}
}

func (c *checker) sched(path string, s *Sched) {
	if !c.oneOf(path+".policy", s.Policy, SchedNormal, SchedBatch, SchedIdle, SchedFIFO, SchedRoundRobin, SchedDeadline, SchedExt) {
		return
	}
	realtime := s.Policy == SchedFIFO || s.Policy == SchedRoundRobin
	switch {
	case realtime && (s.Priority < 1 || s.Priority > 99):
		c.errorf(path+".priority", "%d is out of range for %s; 1 to 99", s.Priority, s.Policy)
	case !realtime && s.Priority != 0:
		c.errorf(path+".priority", "%s has no priority; leave it out, or use policy fifo or round_robin", s.Policy)
	}
	if s.Policy != SchedDeadline {
		if s.Runtime != 0 || s.Deadline != 0 || s.Period != 0 {
			c.errorf(path, "%s has no runtime, deadline or period; leave them out, or use policy deadline", s.Policy)
		}
		return
	}
	c.deadline(path, s)
}

// deadline checks what sched_setattr(2) checks of SCHED_DEADLINE.
func (c *checker) deadline(path string, s *Sched) {
	const minRuntime = Duration(1024) // DL_SCALE of the kernel
	switch {
	case s.Runtime < minRuntime:
		c.errorf(path+".runtime", "%s is out of range; at least %s", s.Runtime, minRuntime)
	case s.Deadline < s.Runtime:
		c.errorf(path+".deadline", "%s is out of range; at least the runtime, %s", s.Deadline, s.Runtime)
	case s.Period != 0 && s.Period < s.Deadline:
		c.errorf(path+".period", "%s is out of range; at least the deadline, %s, or left out", s.Period, s.Deadline)
	}
}

func (c *checker) memPolicy(path string, m *MemPolicy) {
	if !c.oneOf(path+".mode", m.Mode, MemDefault, MemBind, MemPreferred, MemInterleave, MemLocal, MemPreferredMany, MemWeightedInterleave) {
		return
	}
	none := m.Mode == MemDefault || m.Mode == MemLocal
	switch n := len(m.Nodes); {
	case none && n > 0:
		c.errorf(path+".nodes", "%s has no nodes; leave them out", m.Mode)
	case m.Mode == MemPreferred && n != 1:
		c.errorf(path+".nodes", "preferred wants one node, has %d; use preferred_many for several", n)
	case !none && n == 0:
		c.errorf(path+".nodes", "%s wants at least one node, such as 0", m.Mode)
	case n > 0 && m.Nodes[n-1] > MaxNUMANode:
		c.errorf(path+".nodes", "%d is out of range; 0 to %d", m.Nodes[n-1], MaxNUMANode)
	}
	for i, flag := range m.Flags {
		at := fmt.Sprintf("%s.flags[%d]", path, i)
		if c.oneOf(at, flag, MemStaticNodes, MemRelativeNodes, MemNUMABalancing) && slices.Contains(m.Flags[:i], flag) {
			c.errorf(at, "%s stands twice", flag)
		}
	}
	if none && len(m.Flags) > 0 {
		c.errorf(path+".flags", "%s has no flags; leave them out", m.Mode)
	}
	if slices.Contains(m.Flags, MemStaticNodes) && slices.Contains(m.Flags, MemRelativeNodes) {
		c.errorf(path+".flags", "static_nodes and relative_nodes exclude each other; keep one")
	}
}
