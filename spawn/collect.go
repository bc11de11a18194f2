package spawn

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/worker"
)

// StopAndCollect stops all workers and returns exactly one report per worker, in
// order of group and index. It starts workers that nobody started. Workers are
// collected side by side, and every wait is bounded: at most 5 s until all are
// in their loops, 5 s to commit, then SIGKILL, and 3 s to reap. Calling it again
// returns the same reports.
func (h *Handle) StopAndCollect() ([]report.Worker, error) {
	if h.closed {
		return nil, errors.New("stop and collect: the handle is closed")
	}
	if len(h.tasks) == 0 {
		return nil, nil
	}
	h.Start()
	if !h.collected {
		h.collected = true
		h.cloner.do(h.collect)
	}
	reports := make([]report.Worker, len(h.tasks))
	for i := range reports {
		reports[i] = h.report(i)
	}
	return reports, nil
}

// collect runs on the cloner's thread.
func (h *Handle) collect() {
	h.await(&h.arena.shared.ReadyCount, worker.StateRunning, readyTimeout)
	h.stoppedNs = monotonic()
	for i, s := range h.arena.slabs {
		atomic.StoreUint32(&s.Stop, 1)
		h.tasks[i].signal(unix.SIGUSR1)
	}
	if !h.reapAll(commitTimeout) {
		for i := range h.tasks {
			t := &h.tasks[i]
			if !t.reaped {
				t.timedOut = state(h.arena.slabs[i]) != worker.StateCommitted
				t.kill()
			}
		}
		h.reapAll(reapTimeout)
	}
	for i := range h.tasks {
		if t := &h.tasks[i]; !t.reaped && t.waitErr == nil {
			t.waitErr = fmt.Errorf("pid %d did not end within %v of SIGKILL", t.pid, reapTimeout)
		}
	}
	h.endedNs = monotonic()
}

// await waits until count says that every worker reached the state, or died on
// the way, or the timeout passed. It runs on the cloner's thread.
func (h *Handle) await(count *uint32, want uint32, timeout time.Duration) {
	deadline := time.Now().Add(timeout)
	for {
		n := atomic.LoadUint32(count)
		if int(n) >= len(h.tasks) || int(n) >= len(h.tasks)-h.diedBefore(want) {
			return
		}
		left := time.Until(deadline)
		if left <= 0 {
			return
		}
		futexWaitFor(count, n, min(left, lookInterval))
	}
}

// diedBefore reaps workers that ended, and counts those that never reached the
// state.
func (h *Handle) diedBefore(want uint32) int {
	h.reapReady(0)
	died := 0
	for i := range h.tasks {
		if h.tasks[i].reaped && state(h.arena.slabs[i]) < want {
			died++
		}
	}
	return died
}

// reapAll reaps workers as they end until all have, or the timeout passed.
func (h *Handle) reapAll(timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		left := 0
		for i := range h.tasks {
			if h.tasks[i].pid != 0 && !h.tasks[i].reaped {
				left++
			}
		}
		if left == 0 {
			return true
		}
		for left > 0 {
			wait := time.Until(deadline)
			if wait <= 0 {
				return false
			}
			left -= h.reapReady(wait)
		}
	}
}

// reapReady waits for the first workers to end, reaps all that did and returns
// their number.
func (h *Handle) reapReady(wait time.Duration) int {
	var events [128]unix.EpollEvent
	ms := int((wait + time.Millisecond - 1) / time.Millisecond)
	reaped := 0
	for {
		n, err := unix.EpollWait(h.epoll, events[:], ms)
		if err != nil || n == 0 {
			return reaped // EINTR: the caller waits again
		}
		for _, ev := range events[:n] {
			if h.reap(&h.tasks[ev.Fd]) {
				reaped++
			}
		}
		ms = 0
	}
}

// reap collects the exit status of a worker that ended. What the worker forked
// dies first, while its own pid still guards the process group's number.
func (h *Handle) reap(t *task) bool {
	if t.reaped {
		return false
	}
	unix.Kill(-t.pid, unix.SIGKILL)
	done, err := waitPidfd(t.pidfd, &t.exit)
	if err == nil && !done {
		return false
	}
	t.waitErr = err
	t.reaped = true
	disown(t.pid)
	unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, t.pidfd, nil)
	return true
}

// signal sends a signal to the worker's process, unless it was reaped.
func (t *task) signal(sig unix.Signal) {
	if t.pid != 0 && !t.reaped {
		unix.PidfdSendSignal(t.pidfd, sig, nil, 0)
	}
}

// kill sends SIGKILL to the worker and to its process group.
func (t *task) kill() {
	if t.pid != 0 && !t.reaped {
		unix.PidfdSendSignal(t.pidfd, unix.SIGKILL, nil, 0)
		unix.Kill(-t.pid, unix.SIGKILL)
	}
}
