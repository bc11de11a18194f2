package spawn

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// settings puts what the group asked for beside what the worker read back.
func settings(p *groupPlan, s *worker.Slab) map[string]report.Setting {
	g, u := &s.Got, &s.Setup
	if g.Valid == 0 {
		return nil
	}
	m := map[string]report.Setting{
		"policy":     {Got: policyText(g.Policy, g.Priority, g.DLRuntimeNs, g.DLDeadlineNs, g.DLPeriodNs)},
		"nice":       {Got: strconv.Itoa(int(g.Nice))},
		"affinity":   {Got: cpuList(&g.Affinity).String()},
		"mem_policy": {Got: memText(uint64(g.MemMode), &g.MemNodes)},
		"comm":       {Got: unix.ByteSliceToString(g.Comm[:])},
		"cgroup":     {Got: string(g.Cgroup[:min(g.CgroupLen, worker.MaxCgroupPath)])},
		"uid":        {Got: strconv.FormatUint(uint64(g.UID), 10)},
		"gid":        {Got: strconv.FormatUint(uint64(g.GID), 10)},
	}
	ask := func(step uint32, name, text string) {
		if u.Steps&(1<<step) != 0 {
			m[name] = report.Setting{Asked: text, Got: m[name].Got}
		}
	}
	ask(worker.StepSched, "policy", policyText(u.Policy, u.Priority, u.DLRuntimeNs, u.DLDeadlineNs, u.DLPeriodNs))
	ask(worker.StepNice, "nice", strconv.Itoa(int(u.Nice)))
	ask(worker.StepAffinity, "affinity", cpuList(&u.Affinity).String())
	ask(worker.StepNUMANode, "affinity", cpuList(&u.NUMANodeMask).String())
	ask(worker.StepMemPolicy, "mem_policy", memText(u.MemMode, &u.MemNodes))
	ask(worker.StepComm, "comm", unix.ByteSliceToString(u.Comm[:]))
	for name, id := range map[string]*uint32{"uid": p.group.UID, "gid": p.group.GID} {
		if id != nil { // a container's leader drops it for its workers
			m[name] = report.Setting{Asked: strconv.FormatUint(uint64(*id), 10), Got: m[name].Got}
		}
	}
	return m
}

// policyText names a policy and its parameters: "normal", "fifo:50",
// "deadline:1ms/5ms/10ms" (runtime, deadline, period).
func policyText(policy, priority uint32, runtime, deadline, period uint64) string {
	name := fmt.Sprintf("policy %d", policy)
	for _, p := range policies {
		if p.value == uint64(policy) {
			name = p.name
		}
	}
	switch policy {
	case unix.SCHED_FIFO, unix.SCHED_RR:
		return fmt.Sprintf("%s:%d", name, priority)
	case unix.SCHED_DEADLINE:
		if period == 0 {
			period = deadline // as the kernel reads it
		}
		return fmt.Sprintf("%s:%v/%v/%v", name, time.Duration(runtime), time.Duration(deadline), time.Duration(period))
	}
	return name
}

// memText names a memory policy: "default", "bind:0-1", "bind:0,static_nodes".
func memText(mode uint64, nodes *[1]uint64) string {
	var flags []string
	for _, f := range memFlags {
		if mode&f.value != 0 {
			flags = append(flags, f.name)
			mode &^= f.value
		}
	}
	name := fmt.Sprintf("mode %d", mode)
	for _, m := range memModes {
		if m.value == mode {
			name = m.name
		}
	}
	var list spec.CPUList
	for node := range 64 {
		if nodes[0]&(1<<node) != 0 {
			list = append(list, node)
		}
	}
	if len(list) > 0 {
		name += ":" + list.String()
	}
	return strings.Join(append([]string{name}, flags...), ",")
}
