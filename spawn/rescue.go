package spawn

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What is left of a worker's life after the request to stop takes it a few
// milliseconds of CPU. Where its cgroup, its class or others' keep it from those,
// it would never commit, nor even die of SIGKILL: it is then put before what
// keeps it away.
const (
	rescuePatience = time.Second            // from the request to stop or the kill
	rescueInterval = 100 * time.Millisecond // between two rounds
)

// rescues are the classes that a worker is raised to, the first that the kernel
// grants: before all but the keeper and workers of priority 99; or, in a cgroup
// without real-time bandwidth (CONFIG_RT_GROUP_SCHED), a twentieth of a CPU, by a
// deadline.
var rescues = [...]unix.SchedAttr{
	{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 98, Flags: unix.SCHED_FLAG_RESET_ON_FORK},
	{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
		Runtime: uint64(5 * time.Millisecond), Deadline: uint64(100 * time.Millisecond), Period: uint64(100 * time.Millisecond)},
}

// expectEnds begins the time after which workers that have not ended are rescued.
func (h *Handle) expectEnds() { h.rescueNs = monotonic() + int64(rescuePatience) }

// rescue raises workers that have not ended, when it is time to, and returns for
// how long to wait for ends now: at most wait. Programs keep what they have, since
// their graces are theirs.
func (h *Handle) rescue(wait time.Duration) time.Duration {
	if h.rescueNs == 0 {
		return wait
	}
	begin := monotonic()
	if left := time.Duration(h.rescueNs - begin); left > 0 {
		return min(wait, left)
	}
	for _, p := range h.procs {
		if p.program == nil && !p.reaped.Load() {
			h.raise(p.pid, p.pid)
		}
	}
	for i := range h.members {
		m := &h.members[i]
		if tid := atomic.LoadUint32(&m.slab.LiveTID); tid != 0 && h.lives(m) {
			h.raise(h.processOf(m), int(tid))
		}
	}
	// A round among thousands takes a while itself, from the workers' CPU.
	now := monotonic()
	next := max(rescueInterval, 9*time.Duration(now-begin))
	h.rescueNs = now + int64(next)
	return min(wait, next)
}

// processOf is the process that the worker is a thread of.
func (h *Handle) processOf(m *member) int {
	if m.proc < 0 {
		return unix.Getpid()
	}
	return h.procs[m.proc].pid
}

// raise puts a task of a process before others, unless it is as urgent already.
// A container that was killed leaves the tids of its threads behind, which may be
// another process's by now.
func (h *Handle) raise(pid, tid int) {
	if unix.Tgkill(pid, tid, 0) != nil {
		return
	}
	if a, err := unix.SchedGetAttr(tid, 0); err != nil || a.Policy == unix.SCHED_DEADLINE || a.Priority >= 98 {
		return
	}
	for i := range rescues {
		if unix.SchedSetAttr(tid, &rescues[i], 0) == nil {
			h.rescued++
			return
		}
	}
}

// rescueNote says that workers had to be rescued, or is empty.
func (h *Handle) rescueNote() string {
	if h.rescued == 0 {
		return ""
	}
	return fmt.Sprintf("stop: %d tasks of workers did not get to their end within %v, for lack of CPU or hung, and were given a real-time class for it", h.rescued, rescuePatience)
}
