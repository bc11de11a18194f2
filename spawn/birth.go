package spawn

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

// birthRegister guards the processes that belong to handles of this process, by
// pid. It is held across each clone, so a reaper that asks Owns never sees a
// worker that is not there yet. Who collects must not wait for it: a reaped
// process is still there until its handle closes.
type birthRegister struct {
	sync.Mutex
	owned map[int]*process
}

// births is on the heap, which births leave out: in the program's data each one
// would cost the spawner a copy of the page that it locks on.
var births = sync.OnceValue(func() *birthRegister { return new(birthRegister) })

// Owns tells whether pid is a worker that a handle of this process will reap.
// A process that reaps orphans (PID 1) must leave such a pid alone.
func Owns(pid int) bool {
	b := births()
	b.Lock()
	defer b.Unlock()
	p := b.owned[pid]
	return p != nil && !p.reaped.Load()
}

// disown forgets processes that were reaped, or that nobody will reap any more: a
// process that reaps orphans may have them.
func disown(procs []*process) {
	b := births()
	b.Lock()
	defer b.Unlock()
	for _, p := range procs {
		// The number may be another's by now.
		if b.owned[p.pid] == p {
			delete(b.owned, p.pid)
		}
	}
}

// Spawn checks the workload, makes all that its workers share and gives birth
// to them; they wait at the start gate until Start. Whatever fails, nothing is
// left behind: no process, descriptor or mapping. A workload without workers
// gives an empty handle.
func Spawn(w Workload) (*Handle, error) {
	if bare.UsesCgo() {
		return nil, errors.New("spawn: the program uses cgo, beside which no worker can be born; build it with CGO_ENABLED=0")
	}
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
	if err := findNodes(plans); err != nil {
		return nil, err
	}
	if err := reserveFDs(total, plans); err != nil {
		return nil, err
	}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll descriptor: %w", err)
	}
	if h.arena, err = newArena(plans, w.Samples, w.Phases); err != nil {
		unix.Close(h.epoll)
		return nil, err
	}
	h.keeper = takeKeeper()
	if w.CloneMode == Thread {
		h.cloner.do(func() { err = h.startThreads() })
	} else {
		h.cloner.do(func() { err = h.bearAll() })
	}
	if err == nil && h.bornNs == 0 {
		h.keeper.do(func() { err = h.awaitBirth() })
		h.bornNs = monotonic()
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// awaitBirth waits until all workers stand at the gate. Processes have taken what
// they own of the descriptors then; threads have told their tids. It runs on the
// keeper's thread.
func (h *Handle) awaitBirth() error {
	if h.stacks == nil {
		h.await(&h.arena.shared.BornCount, worker.StateAtGate, bornTimeout)
		h.arena.closePipes()
		return nil
	}
	if !h.await(&h.arena.shared.BornCount, worker.StateAtGate, threadTimeout) {
		return fmt.Errorf("threads: not all of %d came up within %v", len(h.members), threadTimeout)
	}
	return nil
}

// reserveFDs makes sure that the process may open the descriptors that the
// workload needs: one per worker to watch it, and those of its work type.
func reserveFDs(total int, plans []groupPlan) error {
	const spare = 64
	need := uint64(total + spare)
	for i := range plans {
		need += uint64(plans[i].descriptors())
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

// bearAll clones all processes, in order. It runs on the cloner's thread.
func (h *Handle) bearAll() error {
	area, err := bare.NewArea()
	if err != nil {
		return err
	}
	defer area.Free() // each worker has its own copy
	h.reserve()
	heap := excludeHeap(area)
	defer heap.restore()
	h.birthNs = monotonic()
	next := 0
	for g := range h.plans {
		n := h.plans[g].group.Workers
		slabs := h.arena.slabs[next : next+n]
		next += n
		if n == 0 {
			continue
		}
		if err := h.bearGroup(g, slabs, heap, h.plans[g].cgroup); err != nil {
			return fmt.Errorf("groups[%d]: %w", g, err)
		}
	}
	if h.allBorn() {
		h.bornNs = monotonic()
		h.arena.closePipes()
	}
	return nil
}

// soonBorn is how long the cloner waits for the last workers itself. To hand the
// wait to the keeper takes about as long as they do, and a CPU that they need.
const soonBorn = 2 * time.Millisecond

// allBorn waits until all workers stand at the gate, for soonBorn at most.
func (h *Handle) allBorn() bool {
	shared, all := h.arena.shared, uint32(len(h.members))
	atomic.StoreUint32(&shared.Awaited, all)
	defer atomic.StoreUint32(&shared.Awaited, 0)
	for end := time.Now().Add(soonBorn); ; {
		n := atomic.LoadUint32(&shared.BornCount)
		left := time.Until(end)
		if n >= all || left <= 0 {
			return n >= all
		}
		futexWaitFor(&shared.BornCount, n, left)
	}
}

// reserve makes room for all that births add to the heap, which would else grow
// meanwhile and be copied by each.
func (h *Handle) reserve() {
	n := len(h.arena.slabs)
	h.members = slices.Grow(h.members, n)
	h.procs = slices.Grow(h.procs, n)
	h.unborn = make([]process, n)
	b := births()
	b.Lock()
	defer b.Unlock()
	if b.owned == nil {
		b.owned = make(map[int]*process, n)
	}
}

// bearGroup clones the workers of one group: a process each, or one container
// for all of them.
func (h *Handle) bearGroup(g int, slabs []*worker.Slab, heap *excluded, cgroup string) error {
	birth := birth{area: heap.area}
	programs := h.plans[g].work.Type.Resource == worker.ExecProgram
	if programs && cgroup == "" {
		cgroup = h.arena.programCgroup()
	}
	cgroupFD := -1
	if cgroup != "" {
		fd, err := unix.Open(cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open cgroup %s: %w", cgroup, err)
		}
		defer unix.Close(fd)
		cgroupFD = fd
	}
	birth.pidfd = &h.arena.shared.PidFD
	birth.args = cloneArgs(cgroupFD, birth.pidfd)
	for _, s := range slabs {
		h.inheritNice(s)
	}
	if h.plans[g].group.Pcomm != "" {
		return h.bearContainer(g, slabs, birth)
	}
	birth.main = worker.ProcessMain
	for n, s := range slabs {
		if n%rescanBirths == rescanBirths-1 {
			heap.rescan()
		}
		birth.arg = slabAddress(s)
		if err := h.bear(birth, nil); err != nil {
			return fmt.Errorf("clone worker %d of %d%s: %w", n, len(slabs), explainClone(err), err)
		}
		h.members = append(h.members, member{group: g, index: n, slab: s, proc: len(h.procs) - 1})
		if programs {
			h.procs[len(h.procs)-1].program = h.arena.programOf(s)
		}
	}
	return nil
}

// bearContainer clones the leader of a container, which starts the workers as
// threads of itself.
func (h *Handle) bearContainer(g int, slabs []*worker.Slab, birth birth) error {
	areas, err := bare.NewAreas(len(slabs))
	if err != nil {
		return err
	}
	defer areas.Free() // the leader has its own copy
	c := h.arena.container(g)
	fillContainer(c, &h.plans[g], slabs, areas)
	birth.main, birth.arg = worker.ContainerMain, slabs[0].Container
	if err := h.bear(birth, c); err != nil {
		return fmt.Errorf("clone container %s%s: %w", h.plans[g].group.Pcomm, explainClone(err), err)
	}
	for n, s := range slabs {
		h.members = append(h.members, member{group: g, index: n, slab: s, proc: len(h.procs) - 1})
	}
	return nil
}

// startThreads starts all workers as threads of this process. It runs on the
// cloner's thread.
func (h *Handle) startThreads() (err error) {
	if err := bare.GuardThreads(); err != nil {
		return fmt.Errorf("install fault handlers for threads: %w", err)
	}
	if h.stacks, err = bare.NewAreas(len(h.arena.slabs)); err != nil {
		return err
	}
	h.birthNs = monotonic()
	i := 0
	for g := range h.plans {
		for n := range h.plans[g].group.Workers {
			s := h.arena.slabs[i]
			s.Mode = worker.ModeThread
			h.inheritNice(s)
			args := bare.ThreadArgs(&s.LiveTID)
			if _, err := h.stacks.CloneThread(i, &args, worker.ThreadMain, slabAddress(s)); err != nil {
				return fmt.Errorf("groups[%d]: start thread %d%s: %w", g, n, explainClone(err), err)
			}
			h.members = append(h.members, member{group: g, index: n, slab: s, proc: -1})
			i++
		}
	}
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

// birth is what one clone of a process needs.
type birth struct {
	area  *bare.Area
	main  func(uintptr)
	arg   uintptr
	args  *bare.CloneArgs
	pidfd *int32 // where the kernel writes it, in shared memory
}

// bear clones one process and watches it. The descriptor table is shared until
// its first steps, when it takes a copy of what it owns: copying it here would
// cost time in proportion to the workers born before.
func (h *Handle) bear(b birth, c *worker.Container) error {
	p := &h.unborn[len(h.procs)]
	p.container = c
	register := births()
	register.Lock()
	pid, err := b.area.Clone(b.args, b.main, b.arg)
	if err == nil {
		p.pid = pid
		register.owned[pid] = p
	}
	register.Unlock()
	if err != nil {
		return err
	}
	p.pidfd = int(*b.pidfd)
	h.procs = append(h.procs, p)
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(h.procs) - 1)}
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, p.pidfd, &ev); err != nil {
		return fmt.Errorf("watch pid %d: %w", pid, err)
	}
	return nil
}

// explainClone says what the errno of a failed clone means here.
func explainClone(err error) string {
	switch err {
	case unix.EAGAIN:
		return " (the limit on processes: `ulimit -u`, pids.max of the cgroup, kernel.pid_max or kernel.threads-max)"
	case unix.ENOMEM:
		return " (no memory, or the PID namespace has lost its init)"
	case unix.EMFILE:
		return " (no descriptor is left for its pidfd; see `ulimit -n`)"
	case unix.ENFILE:
		return " (the machine's limit on open files: fs.file-max)"
	case unix.EBUSY:
		return " (the cgroup has controllers enabled for its children, so it takes no processes)"
	case unix.ENOENT, unix.ENODEV:
		return " (the cgroup was removed meanwhile)"
	case unix.ENOSYS, unix.EPERM:
		return " (clone3 is refused: a kernel before 5.7 or a seccomp filter)"
	}
	return ""
}
