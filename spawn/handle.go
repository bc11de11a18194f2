package spawn

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// Bounds of the waits of a handle.
const (
	threadTimeout = 2 * time.Second // from the last clone until all threads have told their tid
	bornTimeout   = 5 * time.Second // from the last clone until all workers stand at the gate
	readyTimeout  = 5 * time.Second // from opening the gate until all workers are in their loops
	commitTimeout = 5 * time.Second // from the request to stop until all reports are committed
	reapTimeout   = 3 * time.Second // from the kill until all processes are reaped

	// lookInterval is how often a wait on a counter looks for workers that died
	// and will never count themselves in.
	lookInterval = 20 * time.Millisecond
)

// Handle is a workload whose workers were born. Its methods can be called from
// several goroutines. Start, Run, StopAndCollect, AwaitWork, Look, Notes and Close
// take turns; the others wait for nobody, and do nothing once the handle is
// closed. Close kills first and then takes its turn, so that it ends a Run.
type Handle struct {
	turn  sync.Mutex   // held by methods that take turns
	alive sync.RWMutex // held by those that read the workers' memory, and to unmap it
	phase sync.Mutex   // held by SetPhase

	groups  []spec.Group
	plans   []groupPlan
	cloner  *thread
	keeper  *thread // waits, stops and collects
	arena   *arena
	epoll   int
	procs   []*process
	unborn  []process  // memory of procs, made before the births
	held    []*process // that have ended, and somebody else keeps from being reaped
	members []member
	stacks  *bare.Area // of threads

	birthNs   int64        // CLOCK_MONOTONIC of the first clone
	bornNs    int64        // of the last worker's arrival at the gate
	openedNs  atomic.Int64 // of opening the gate, 0 before
	stoppedNs atomic.Int64 // of the request to stop
	endedNs   atomic.Int64 // of the last collection
	collected atomic.Bool
	closed    atomic.Bool
	cancelled bool                   // Run was told to stop early
	urgent    bool                   // workers may have priority 99, and may run
	spawner   atomic.Pointer[string] // what scheduling it was given then

	rescueNs int64 // CLOCK_MONOTONIC of the next round of rescue, 0 while none is due
	rescued  int   // tasks that rescue raised
}

// member is one worker as the spawner sees it.
type member struct {
	group, index int
	slab         *worker.Slab
	proc         int // in Handle.procs, −1 for a thread
	timedOut     bool
	waitErr      error
}

// process is one child of the spawner: a forked worker, or a container.
type process struct {
	pid, pidfd int
	container  *worker.Container // nil for a forked worker
	program    *program          // of an exec worker
	reaped     atomic.Bool       // written by the keeper
	held       bool              // it is in Handle.held
	waitErr    error
	exit       exitStatus
}

// exitStatus is how a process ended.
type exitStatus struct {
	killed bool  // by a signal
	value  int   // exit status or signal
	cpuNs  int64 // CPU time of its whole life
}

// Timing is how long the parts of a run took, from the spawner's clock.
type Timing struct {
	Birth     time.Duration // from the first clone until all stood at the gate
	Run       time.Duration // from opening the gate to the request to stop
	Collect   time.Duration // from the request to stop until the last worker was collected
	StartSkew time.Duration // from opening the gate to the last worker's first pass
}

// Spawner is the scheduling of the thread that starts and stops the workers:
// "fifo:99", "nice:-20", or "nice:N" where neither was permitted. It has been
// "deadline:50ms/100ms" (runtime, period) if there were workers of any handle
// that may have priority 99, with less runtime where other threads have reserved
// some.
func (h *Handle) Spawner() string {
	if policy := h.spawner.Load(); policy != nil {
		return *policy
	}
	if h.keeper == nil {
		return h.cloner.policy // without workers; a keeper's is the same
	}
	return *h.keeper.was.Load()
}

// WorkerPIDs lists what the workload is made of for the kernel: the pids of its
// processes in order of birth, where a container counts once, or, in thread
// mode, the tids of its threads. They stay valid until the worker is collected.
// A closed handle has none.
func (h *Handle) WorkerPIDs() []int {
	h.alive.RLock()
	defer h.alive.RUnlock()
	if h.closed.Load() {
		return nil
	}
	var pids []int
	for _, p := range h.procs {
		pids = append(pids, p.pid)
	}
	for i := range h.members {
		if h.members[i].proc < 0 {
			pids = append(pids, int(h.members[i].slab.TID))
		}
	}
	return pids
}

// CgroupProcs lists the pids that may be written to a cgroup.procs file. In
// thread mode there are none: writing one would move the spawner itself.
func (h *Handle) CgroupProcs() ([]int, error) {
	if h.stacks != nil {
		return nil, errors.New("cgroup.procs: the workers are threads, and writing a thread there moves the spawner with all it runs; use clone_mode fork")
	}
	return h.WorkerPIDs(), nil
}

// Start opens the gate. Opening it again changes nothing.
func (h *Handle) Start() {
	h.turn.Lock()
	defer h.turn.Unlock()
	if len(h.members) > 0 && !h.closed.Load() {
		h.keeper.do(h.open)
	}
}

// open opens the gate, on the keeper's thread.
func (h *Handle) open() {
	if h.openedNs.Load() != 0 {
		return
	}
	if h.rivals() {
		h.urgent = true
		theUrgency().begin(h.keeper)
	}
	h.openedNs.Store(monotonic())
	atomic.StoreUint32(&h.arena.shared.Gate, 1)
	futexWakeAll(&h.arena.shared.Gate)
}

// rivals tells whether workers may come to be as urgent as the keeper.
func (h *Handle) rivals() bool {
	for i := range h.plans {
		p := &h.plans[i]
		if p.setup.Steps&(1<<worker.StepSched) != 0 && p.setup.Priority == 99 {
			return true
		}
		if urgent := p.work.Type.Urgent; urgent != nil && urgent(&p.work.Values) {
			return true
		}
	}
	return false
}

// settle is for the keeper's thread when the workers are collected.
func (h *Handle) settle() {
	h.spawner.Store(h.keeper.was.Load())
	if h.urgent {
		h.urgent = false
		theUrgency().end()
	}
}

// SetAffinity moves worker i (in report order) to the CPUs. It works before and
// after Start; a group's own affinity, which the worker puts in place behind the
// gate, comes after what was set before.
func (h *Handle) SetAffinity(i int, cpus spec.CPUList) error {
	h.alive.RLock()
	defer h.alive.RUnlock()
	if h.closed.Load() {
		return errors.New("set affinity: the handle is closed")
	}
	if i < 0 || i >= len(h.members) {
		return fmt.Errorf("set affinity: no worker %d, the handle has %d", i, len(h.members))
	}
	m := &h.members[i]
	tid := int(m.slab.TID)
	if m.proc >= 0 {
		if tid = h.procs[m.proc].pid; h.procs[m.proc].container != nil {
			return fmt.Errorf("set affinity: worker %d lives in container %s; give its group an affinity instead", i, h.groups[m.group].Pcomm)
		}
	}
	if len(cpus) == 0 {
		return fmt.Errorf("set affinity of worker %d: empty CPU set", i)
	}
	var mask worker.CPUMask
	if err := setMask(&mask, cpus); err != nil {
		return fmt.Errorf("set affinity of worker %d: %w", i, err)
	}
	if err := setAffinity(tid, &mask); err != nil {
		return fmt.Errorf("set affinity of worker %d (pid %d) to %v: %w", i, tid, cpus, err)
	}
	return nil
}

// SnapshotIterations is how many passes each worker has made, in report order.
// After Close all are 0.
func (h *Handle) SnapshotIterations() []uint64 {
	h.alive.RLock()
	defer h.alive.RUnlock()
	counts := make([]uint64, len(h.members))
	for i := range counts {
		if h.closed.Load() {
			break
		}
		counts[i] = atomic.LoadUint64(&h.members[i].slab.Iterations)
	}
	return counts
}

// Alive tells which workers have not ended, in report order, as far as this
// handle has noticed: it looks while it waits in Run or collects.
func (h *Handle) Alive() []bool {
	h.alive.RLock()
	defer h.alive.RUnlock()
	alive := make([]bool, len(h.members))
	for i := range alive {
		alive[i] = !h.closed.Load() && h.lives(&h.members[i])
	}
	return alive
}

// lives tells whether a worker has not ended.
func (h *Handle) lives(m *member) bool {
	if m.slab.Mode != worker.ModeProcess && atomic.LoadUint32(&m.slab.LiveTID) == 0 && state(m.slab) > worker.StateUnborn {
		return false
	}
	return m.proc < 0 || !h.procs[m.proc].reaped.Load()
}

// Timing tells how long the parts of the run took; parts that did not happen
// yet are 0.
func (h *Handle) Timing() Timing {
	h.alive.RLock()
	defer h.alive.RUnlock()
	opened, stopped, ended := h.openedNs.Load(), h.stoppedNs.Load(), h.endedNs.Load()
	t := Timing{Birth: time.Duration(h.bornNs - h.birthNs)}
	if opened == 0 {
		return t
	}
	if stopped != 0 {
		t.Run = time.Duration(stopped - opened)
	}
	if ended != 0 {
		t.Collect = time.Duration(ended - stopped)
	}
	if !h.closed.Load() {
		for i := range h.members {
			t.StartSkew = max(t.StartSkew, time.Duration(h.members[i].slab.StartNs-opened))
		}
	}
	return t
}

// SetPhase tells all workers that a phase begins. Each notices when it next ends
// a pass or a wait, and its slice of the phase before ends now all the same: a
// worker has a slice of every phase that began while it ran, and one of 0 units
// for a phase in which it did nothing. The epoch is 0 from the start, k+1 in step
// k, BetweenPhases between steps; before Start it names the first phase. Phases
// beyond the workload's number of them belong to the last one.
func (h *Handle) SetPhase(epoch uint32) {
	h.phase.Lock()
	defer h.phase.Unlock()
	h.alive.RLock()
	defer h.alive.RUnlock()
	if h.arena == nil || h.closed.Load() || h.collected.Load() || h.arena.turns == 0 {
		return
	}
	shared := h.arena.shared
	turn := shared.Turn
	switch {
	case shared.MarkAt(turn).Epoch == epoch:
		return
	case h.openedNs.Load() == 0:
		shared.MarkAt(turn).Epoch = epoch
	case int(turn)+1 < h.arena.turns:
		*shared.MarkAt(turn + 1) = worker.Mark{AtNs: monotonic(), Epoch: epoch}
		atomic.StoreUint32(&shared.Turn, turn+1)
		h.cutPrograms()
	}
}

// BetweenPhases is the epoch between two steps.
const BetweenPhases = math.MaxUint32

// Kill sends SIGKILL to all processes of the workload and what they forked, and
// asks threads to stop. It waits for nothing: StopAndCollect or Close reaps.
func (h *Handle) Kill() {
	h.alive.RLock()
	defer h.alive.RUnlock()
	if h.closed.Load() {
		return
	}
	for _, p := range h.procs {
		p.kill()
	}
	for i := range h.members {
		atomic.StoreUint32(&h.members[i].slab.Stop, 1)
	}
}

// Close ends the handle: workers that were not collected are killed and reaped,
// then the pipes are closed and the memory is unmapped. Calling it again does
// nothing. The error names what could not be undone; the memory of a thread that
// cannot be ended stays.
func (h *Handle) Close() error {
	if !h.collected.Load() {
		h.Kill() // what others wait for ends now
	}
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.closed.Load() {
		return nil
	}
	if h.arena == nil {
		h.closed.Store(true)
		return nil
	}
	var errs []error
	if !h.collected.Load() {
		h.keeper.do(func() {
			h.Kill()
			h.expectEnds()
			grace := time.Duration(0)
			if h.stacks != nil { // a thread that is ended by force could leave a descriptor open
				h.open()
				grace = commitTimeout
			}
			h.endAll(grace)
			h.settle()
		})
	}
	h.alive.Lock()
	h.closed.Store(true) // nobody reads the memory from here on
	h.alive.Unlock()
	h.keeper.giveBack()
	disown(h.procs)
	for _, p := range h.procs {
		if !p.reaped.Load() {
			errs = append(errs, fmt.Errorf("pid %d did not end within %v of SIGKILL", p.pid, reapTimeout))
		}
		unix.Close(p.pidfd)
	}
	unix.Close(h.epoll)
	for i := range h.members {
		if s := h.members[i].slab; s.Mode == worker.ModeThread && atomic.LoadUint32(&s.LiveTID) != 0 {
			h.arena.closePipes()
			return errors.Join(append(errs, fmt.Errorf("thread %d does not end; its memory stays mapped", s.TID))...)
		}
	}
	if h.stacks != nil {
		errs = append(errs, h.stacks.Free())
	}
	return errors.Join(append(errs, h.arena.free())...)
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, the clock of the workers.
func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// state is how far the worker came.
func state(s *worker.Slab) uint32 { return atomic.LoadUint32(&s.State) }
