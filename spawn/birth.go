package spawn

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

// births guards the set of pids that belong to handles of this process. It is
// held across each clone, so a reaper that asks Owns never sees a worker that
// is not in the set yet.
var births = struct {
	sync.Mutex
	owned map[int]struct{}
}{}

// Owns tells whether pid is a worker that a handle of this process will reap.
// A process that reaps orphans (PID 1) must leave such a pid alone.
func Owns(pid int) bool {
	births.Lock()
	defer births.Unlock()
	_, ok := births.owned[pid]
	return ok
}

func disown(pid int) {
	births.Lock()
	defer births.Unlock()
	delete(births.owned, pid)
}

// Spawn checks the workload, makes all that its workers share and gives birth
// to them; they wait at the start gate until Start. Whatever fails, nothing is
// left behind: no process, descriptor or mapping. A workload without workers
// gives an empty handle.
func Spawn(w Workload) (*Handle, error) {
	plans, err := w.admit()
	if err != nil {
		return nil, err
	}
	h := &Handle{groups: w.Groups, plans: plans, cloner: theCloner()}
	total := 0
	for i := range plans {
		total += plans[i].group.Workers
	}
	if total == 0 {
		return h, nil
	}
	if err := reserveFDs(total, plans); err != nil {
		return nil, err
	}
	if h.arena, err = newArena(plans, w.Samples); err != nil {
		return nil, err
	}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		h.arena.free()
		return nil, fmt.Errorf("create epoll descriptor: %w", err)
	}
	h.tasks = make([]task, total)
	h.cloner.do(func() { err = h.bearAll() })
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// reserveFDs makes sure that the process may open the descriptors that the
// workload needs: one per worker to watch it, and four per pair of pipe users.
func reserveFDs(total int, plans []groupPlan) error {
	const spare = 64
	need := uint64(total + spare)
	for i := range plans {
		if plans[i].work.Type.Resource == worker.PipePair {
			need += 2 * uint64(plans[i].group.Workers)
		}
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	if lim.Cur >= need {
		return nil
	}
	was := lim.Cur
	lim.Cur, lim.Max = need, max(lim.Max, need)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("raise RLIMIT_NOFILE from %d to %d for %d workers (see `ulimit -n`): %w", was, need, total, err)
	}
	return nil
}

// bearAll clones all workers, in order. It runs on the cloner's thread.
func (h *Handle) bearAll() error {
	area, err := bare.NewArea()
	if err != nil {
		return err
	}
	defer area.Free() // each worker has its own copy
	lo, hi := area.Range()
	heap := runtimeMemory(mapping{lo, hi})
	advise(heap, unix.MADV_DONTFORK)
	defer advise(heap, unix.MADV_DOFORK)
	i := 0
	for g := range h.plans {
		for n := range h.plans[g].group.Workers {
			t, slab := &h.tasks[i], h.arena.slabs[i]
			t.group, t.index, t.pidfd = g, n, -1
			h.inheritNice(slab)
			if err := t.bear(area, slab); err != nil {
				return fmt.Errorf("groups[%d]: clone worker %d of %d%s: %w", g, n, h.plans[g].group.Workers, explainClone(err), err)
			}
			if err := h.watch(t, i); err != nil {
				return err
			}
			i++
		}
	}
	h.await(&h.arena.shared.BornCount, worker.StateAtGate, bornTimeout)
	h.arena.closePipes()
	return nil
}

// inheritNice gives a worker the nice value of this process where its group
// sets none: the cloner's raised priority is not for its children, and the
// kernel resets them to 0.
func (h *Handle) inheritNice(s *worker.Slab) {
	const step = 1 << worker.StepNice
	if s.Setup.Steps&step == 0 && h.cloner.baseNice != 0 {
		s.Setup.Steps |= step
		s.Setup.Nice = int32(h.cloner.baseNice)
	}
}

// bear clones one worker. The descriptor table is shared until the worker's
// first steps, when it takes a copy of what it owns: copying it here would cost
// time in proportion to the workers born before.
func (t *task) bear(area *bare.Area, slab *worker.Slab) error {
	args, pidfd := cloneArgs()
	births.Lock()
	defer births.Unlock()
	pid, err := area.Clone(args, worker.ProcessMain, slabAddress(slab))
	if err != nil {
		return err
	}
	if births.owned == nil {
		births.owned = make(map[int]struct{})
	}
	births.owned[pid] = struct{}{}
	t.pid, t.pidfd = pid, int(*pidfd)
	return nil
}

// explainClone says what the errno of a failed clone means here.
func explainClone(err error) string {
	switch err {
	case unix.EAGAIN:
		return " (the limit on processes: `ulimit -u`, pids.max of the cgroup, kernel.pid_max or kernel.threads-max)"
	case unix.ENOMEM:
		return " (no memory)"
	case unix.ENOSYS, unix.EPERM:
		return " (clone3 is refused: a kernel before 5.7 or a seccomp filter)"
	}
	return ""
}

// watch has the handle's epoll tell when the worker's process ends.
func (h *Handle) watch(t *task, index int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, t.pidfd, &ev); err != nil {
		return fmt.Errorf("watch worker %d: %w", t.pid, err)
	}
	return nil
}
