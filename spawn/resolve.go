package spawn

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// setMask writes a CPU list into a mask.
func setMask(mask *worker.CPUMask, cpus []int) error {
	*mask = worker.CPUMask{}
	for _, cpu := range cpus {
		if cpu < 0 || cpu >= worker.MaxCPUs {
			return fmt.Errorf("CPU %d is out of range, use 0 to %d", cpu, worker.MaxCPUs-1)
		}
		mask[cpu/64] |= 1 << (cpu % 64)
	}
	return nil
}

func resolveAffinity(u *worker.Setup, a *spec.Affinity) error {
	if r := a.RandomSubset; r != nil {
		switch {
		case len(a.Exact) > 0:
			return spec.At("affinity", fmt.Errorf("exact and random_subset are both set; use one"))
		case len(r.From) == 0:
			return spec.At("affinity.random_subset.from", fmt.Errorf("empty CPU set; name the CPUs to draw from"))
		case r.Count <= 0:
			return spec.At("affinity.random_subset.count", fmt.Errorf("%d; use 1 to %d", r.Count, len(r.From)))
		}
		var probe worker.CPUMask
		if err := setMask(&probe, r.From); err != nil {
			return spec.At("affinity.random_subset.from", err)
		}
		return nil
	}
	if a.Intent != "" {
		return spec.At("affinity", fmt.Errorf("%s is an intent; resolve it with package topology first", a.Intent))
	}
	if len(a.Exact) == 0 {
		return spec.At("affinity.exact", fmt.Errorf("empty CPU set; use inherit for no affinity"))
	}
	if err := setMask(&u.Affinity, a.Exact); err != nil {
		return spec.At("affinity.exact", err)
	}
	return nil
}

// flag is a name of the kernel's with its number.
type flag struct {
	name  string
	value uint64
}

// lookUp finds a flag by name.
func lookUp(table []flag, name string) (uint64, bool) {
	for _, f := range table {
		if f.name == name {
			return f.value, true
		}
	}
	return 0, false
}

// names lists the names of a table for an error message.
func names(table []flag) string {
	var s []string
	for _, f := range table {
		s = append(s, f.name)
	}
	return strings.Join(s, ", ")
}

// policies are the scheduling policies: include/uapi/linux/sched.h.
var policies = []flag{
	{"normal", unix.SCHED_NORMAL}, {"batch", unix.SCHED_BATCH}, {"idle", unix.SCHED_IDLE},
	{"fifo", unix.SCHED_FIFO}, {"round_robin", unix.SCHED_RR},
	{"deadline", unix.SCHED_DEADLINE}, {"ext", 7},
}

// minDLRuntime is the kernel's lower bound on sched_runtime: 1 << DL_SCALE.
const minDLRuntime = 1024 * time.Nanosecond

func resolveSched(u *worker.Setup, s *spec.Sched) error {
	policy, ok := lookUp(policies, s.Policy)
	if !ok {
		return spec.At("sched.policy", fmt.Errorf("unknown policy %q; use one of %s", s.Policy, names(policies)))
	}
	u.Policy = uint32(policy)
	switch u.Policy {
	case unix.SCHED_FIFO, unix.SCHED_RR:
		u.Priority = uint32(s.Priority)
		return inRange("sched.priority", s.Priority, 1, 99)
	case unix.SCHED_DEADLINE:
		return resolveDeadline(u, time.Duration(s.Runtime), time.Duration(s.Deadline), time.Duration(s.Period))
	}
	return nil
}

func resolveDeadline(u *worker.Setup, runtime, deadline, period time.Duration) error {
	switch {
	case deadline <= 0:
		return spec.At("sched.deadline", fmt.Errorf("%v; must be above 0", deadline))
	case runtime < minDLRuntime:
		return spec.At("sched.runtime", fmt.Errorf("%v; the kernel wants at least %v", runtime, minDLRuntime))
	case runtime > deadline:
		return spec.At("sched.runtime", fmt.Errorf("%v is longer than the deadline %v", runtime, deadline))
	case period != 0 && deadline > period:
		return spec.At("sched.deadline", fmt.Errorf("%v is longer than the period %v", deadline, period))
	}
	u.DLRuntimeNs, u.DLDeadlineNs, u.DLPeriodNs = uint64(runtime), uint64(deadline), uint64(period)
	return nil
}

// memModes are the memory policies, memFlags their flags:
// include/uapi/linux/mempolicy.h. Only local takes no nodes.
var memModes = []flag{
	{"default", unix.MPOL_DEFAULT}, {"preferred", unix.MPOL_PREFERRED}, {"bind", unix.MPOL_BIND},
	{"interleave", unix.MPOL_INTERLEAVE}, {"local", unix.MPOL_LOCAL},
	{"preferred_many", 5}, {"weighted_interleave", 6},
}

var memFlags = []flag{{"static_nodes", 1 << 15}, {"relative_nodes", 1 << 14}, {"numa_balancing", 1 << 13}}

func resolveMemPolicy(u *worker.Setup, m *spec.MemPolicy) error {
	mode, ok := lookUp(memModes, m.Mode)
	switch {
	case !ok:
		return spec.At("mem_policy.mode", fmt.Errorf("unknown mode %q; use one of %s", m.Mode, names(memModes)))
	case mode == unix.MPOL_LOCAL && len(m.Nodes) > 0:
		return spec.At("mem_policy.nodes", fmt.Errorf("local takes none"))
	case mode != unix.MPOL_LOCAL && len(m.Nodes) == 0:
		return spec.At("mem_policy.nodes", fmt.Errorf("empty; %s needs at least one node", m.Mode))
	}
	u.MemMode = mode
	for _, name := range m.Flags {
		f, ok := lookUp(memFlags, name)
		if !ok {
			return spec.At("mem_policy.flags", fmt.Errorf("unknown flag %q; use one of %s", name, names(memFlags)))
		}
		u.MemMode |= f
	}
	highest := -1
	for _, node := range m.Nodes {
		if node < 0 || node >= bare.MaxNodes {
			return spec.At("mem_policy.nodes", fmt.Errorf("node %d is out of range, use 0 to %d", node, bare.MaxNodes-1))
		}
		u.MemNodes[node/64] |= 1 << (node % 64)
		highest = max(highest, node)
	}
	u.MemMaxNode = uint64(highest + 2)
	if highest < 0 {
		u.MemMaxNode = 0
	}
	return nil
}

const nodeDir = "/sys/devices/system/node"

// findNodes looks up the CPUs of the NUMA nodes that groups are to run on.
func findNodes(plans []groupPlan) error {
	for i := range plans {
		if node := plans[i].group.NUMANode; node != nil {
			if err := resolveNode(&plans[i].setup, *node); err != nil {
				return fmt.Errorf("groups[%d].%w", i, err)
			}
		}
	}
	return nil
}

// resolveNode looks up the CPUs of a NUMA node.
func resolveNode(u *worker.Setup, node int) error {
	cpus, err := nodeCPUs(node)
	if err != nil {
		return fmt.Errorf("numa_node: no node %d here: %w", node, err)
	}
	if len(cpus) == 0 {
		return fmt.Errorf("numa_node: node %d has no CPUs", node)
	}
	return setMask(&u.NUMANodeMask, cpus)
}

// nodeCPUs lists the CPUs of a NUMA node, which may have none.
func nodeCPUs(node int) (spec.CPUList, error) {
	list, err := os.ReadFile(fmt.Sprintf("%s/node%d/cpulist", nodeDir, node))
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(list))
	if text == "" {
		return nil, nil
	}
	cpus, err := spec.ParseCPUList(text)
	if err != nil {
		return nil, fmt.Errorf("CPUs of node %d: %w", node, err)
	}
	return cpus, nil
}

// nodeList lists the online NUMA nodes; none where the kernel does not tell.
func nodeList() spec.CPUList {
	list, err := os.ReadFile(nodeDir + "/online")
	if err != nil {
		return nil
	}
	nodes, err := spec.ParseCPUList(strings.TrimSpace(string(list)))
	if err != nil {
		return nil
	}
	return nodes
}

// onlineNodes is the number of online NUMA nodes, 1 where the kernel does not
// tell.
func onlineNodes() int { return max(len(nodeList()), 1) }
