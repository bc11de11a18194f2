package spawn

import (
	"sync/atomic"
	"time"

	"github.com/guestinit/guestinit/worker"
)

// Look takes note of workers that ended, as Run does while it waits, and tells
// whether any lives.
func (h *Handle) Look() bool {
	h.turn.Lock()
	defer h.turn.Unlock()
	if len(h.members) == 0 || h.closed.Load() {
		return false
	}
	if !h.collected.Load() {
		h.keeper.do(func() { h.reapReady(0) })
	}
	return !h.noneLives()
}

// AwaitWork waits until all workers that live work, behind their gate and their
// set-up; false if some do not by the limit.
func (h *Handle) AwaitWork(limit time.Duration) (all bool) {
	h.turn.Lock()
	defer h.turn.Unlock()
	if len(h.members) == 0 || h.closed.Load() || h.collected.Load() {
		return true
	}
	h.keeper.do(func() {
		all = h.awaitFor(&h.arena.shared.ReadyCount, worker.StateRunning, until(time.Now().Add(limit)))
	})
	return all
}

// Cgroup2 is where the cgroup v2 hierarchy is mounted, and the path of this
// process's cgroup in it.
func Cgroup2() (root, own string, err error) { return cgroup2() }

// RemoveCgroup kills what is left in a cgroup's directory, waits for its end for
// at most a second, and removes the directory, with cgroups that others made
// inside. One that is gone is no error.
func RemoveCgroup(dir string) error { return removeCgroup(dir) }

// InPhase tells whether every worker that runs has closed the slices of phases
// before the one that SetPhase told of last. One that cannot go on, or has no
// room for slices, counts as one that has, and so does a program, whose slices
// SetPhase itself closes.
func (h *Handle) InPhase() bool {
	h.alive.RLock()
	defer h.alive.RUnlock()
	if h.arena == nil || h.closed.Load() {
		return true
	}
	turn := atomic.LoadUint32(&h.arena.shared.Turn)
	for i := range h.members {
		s := h.members[i].slab
		if state(s) != worker.StateRunning || s.PhaseRoom == 0 || s.Program != 0 || !h.lives(&h.members[i]) {
			continue
		}
		if atomic.LoadUint32(&s.PhaseCount) < turn {
			return false
		}
	}
	return true
}
