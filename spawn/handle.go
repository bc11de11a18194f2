package spawn

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// Bounds of the waits of a handle.
const (
	bornTimeout   = 5 * time.Second // from the last clone until all workers stand at the gate
	readyTimeout  = 5 * time.Second // from opening the gate until all workers are in their loops
	commitTimeout = 5 * time.Second // from the request to stop until all reports are committed
	reapTimeout   = 3 * time.Second // from the kill until all processes are reaped

	// lookInterval is how often a wait on a counter looks for workers that died
	// and will never count themselves in.
	lookInterval = 20 * time.Millisecond
)

// Handle is a workload whose workers were born. Its methods are not safe for
// concurrent use, but for Snapshot, Kill and WorkerPIDs.
type Handle struct {
	groups []spec.Group
	plans  []groupPlan
	cloner *cloner
	arena  *arena
	epoll  int
	tasks  []task

	openedNs  int64 // CLOCK_MONOTONIC of opening the gate, 0 before
	stoppedNs int64 // of the request to stop
	endedNs   int64 // of the last collection
	collected bool
	closed    bool
}

// task is one worker as the spawner sees it.
type task struct {
	group, index int
	pid, pidfd   int
	reaped       bool
	timedOut     bool // killed because it did not commit in time
	waitErr      error
	exit         exitStatus
}

// exitStatus is how a process ended.
type exitStatus struct {
	killed bool  // by a signal
	value  int   // exit status or signal
	cpuNs  int64 // CPU time of its whole life
}

// Timing is how long the parts of a run took, from the spawner's clock.
type Timing struct {
	Run       time.Duration // from opening the gate to the request to stop
	Collect   time.Duration // from the request to stop until the last worker was collected
	StartSkew time.Duration // from opening the gate to the last worker's first pass
}

// Spawner is the scheduling of the thread that starts and stops workers:
// "fifo:99", "nice:-20", or "nice:N" where neither was permitted.
func (h *Handle) Spawner() string { return h.cloner.policy }

// WorkerPIDs lists the pids of all workers in report order. They stay valid
// until the worker is collected.
func (h *Handle) WorkerPIDs() []int {
	pids := make([]int, len(h.tasks))
	for i := range h.tasks {
		pids[i] = h.tasks[i].pid
	}
	return pids
}

// Start opens the gate. Opening it again changes nothing.
func (h *Handle) Start() {
	if h.openedNs != 0 || len(h.tasks) == 0 {
		return
	}
	h.cloner.do(func() {
		h.openedNs = monotonic()
		atomic.StoreUint32(&h.arena.shared.Gate, 1)
		futexWakeAll(&h.arena.shared.Gate)
	})
}

// SetAffinity moves worker i (in report order) to the CPUs. It works before and
// after Start; a group's own affinity, which the worker puts in place behind the
// gate, comes after what was set before.
func (h *Handle) SetAffinity(i int, cpus spec.CPUList) error {
	if i < 0 || i >= len(h.tasks) {
		return fmt.Errorf("set affinity: no worker %d, the handle has %d", i, len(h.tasks))
	}
	if len(cpus) == 0 {
		return fmt.Errorf("set affinity of worker %d: empty CPU set", i)
	}
	var mask worker.CPUMask
	if err := setMask(&mask, cpus); err != nil {
		return fmt.Errorf("set affinity of worker %d: %w", i, err)
	}
	if err := setAffinity(h.tasks[i].pid, &mask); err != nil {
		return fmt.Errorf("set affinity of worker %d (pid %d) to %v: %w", i, h.tasks[i].pid, cpus, err)
	}
	return nil
}

// SnapshotIterations is how many passes each worker has made, in report order.
// It can be called at any time before Close.
func (h *Handle) SnapshotIterations() []uint64 {
	counts := make([]uint64, len(h.tasks))
	for i := range counts {
		counts[i] = atomic.LoadUint64(&h.arena.slabs[i].Iterations)
	}
	return counts
}

// Alive tells which workers have not ended, in report order.
func (h *Handle) Alive() []bool {
	alive := make([]bool, len(h.tasks))
	if len(h.tasks) > 0 && !h.collected && !h.closed {
		h.cloner.do(func() { h.reapReady(0) })
	}
	for i := range alive {
		alive[i] = !h.tasks[i].reaped
	}
	return alive
}

// Timing tells how long the parts of the run took; parts that did not happen
// yet are 0.
func (h *Handle) Timing() Timing {
	var t Timing
	if h.openedNs == 0 {
		return t
	}
	if h.stoppedNs != 0 {
		t.Run = time.Duration(h.stoppedNs - h.openedNs)
	}
	if h.endedNs != 0 {
		t.Collect = time.Duration(h.endedNs - h.stoppedNs)
	}
	if h.arena != nil {
		for _, s := range h.arena.slabs {
			t.StartSkew = max(t.StartSkew, time.Duration(s.StartNs-h.openedNs))
		}
	}
	return t
}

// Kill sends SIGKILL to all workers and what they forked. It waits for nothing:
// StopAndCollect or Close reaps.
func (h *Handle) Kill() {
	for i := range h.tasks {
		h.tasks[i].kill()
	}
}

// Close ends the handle: workers that were not collected are killed and reaped,
// then the pipes are closed and the memory is unmapped. Calling it again does
// nothing. The error names what could not be undone.
func (h *Handle) Close() error {
	if h.closed {
		return nil
	}
	h.closed = true
	if len(h.tasks) == 0 {
		return nil
	}
	var errs []error
	if !h.collected {
		h.cloner.do(func() {
			h.Kill()
			h.reapAll(reapTimeout)
		})
	}
	for i := range h.tasks {
		if t := &h.tasks[i]; t.pid != 0 && !t.reaped {
			errs = append(errs, fmt.Errorf("worker %d did not end within %v of SIGKILL", t.pid, reapTimeout))
		}
		h.tasks[i].release()
	}
	unix.Close(h.epoll)
	return errors.Join(append(errs, h.arena.free())...)
}

// release closes the worker's pidfd.
func (t *task) release() {
	if t.pidfd >= 0 && t.pid != 0 {
		unix.Close(t.pidfd)
		t.pidfd = -1
	}
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, the clock of the workers.
func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// state is how far the worker came.
func state(s *worker.Slab) uint32 { return atomic.LoadUint32(&s.State) }
