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
	if len(h.members) == 0 {
		return nil, nil
	}
	h.Start()
	if !h.collected {
		h.collected = true
		h.cloner.do(h.collect)
	}
	reports := make([]report.Worker, len(h.members))
	for i := range reports {
		reports[i] = h.report(i)
	}
	return reports, nil
}

// collect runs on the cloner's thread.
func (h *Handle) collect() {
	h.await(&h.arena.shared.ReadyCount, worker.StateRunning, readyTimeout)
	h.stoppedNs = monotonic()
	for i := range h.members {
		atomic.StoreUint32(&h.members[i].slab.Stop, 1)
	}
	for i := range h.procs {
		h.procs[i].signal(unix.SIGUSR1)
	}
	h.endAll(commitTimeout)
	h.endedNs = monotonic()
}

// endAll waits until all workers have ended, at most grace, and ends those that
// have not by force. What does not end then either is left with a wait error.
func (h *Handle) endAll(grace time.Duration) {
	if h.allEnd(grace) {
		return
	}
	for i := range h.members {
		m := &h.members[i]
		if h.lives(m) {
			m.timedOut = state(m.slab) != worker.StateCommitted
			if m.proc < 0 {
				endThread(int(m.slab.TID))
			}
		}
	}
	for i := range h.procs {
		h.procs[i].kill()
	}
	if h.allEnd(reapTimeout) {
		return
	}
	for i := range h.members {
		if m := &h.members[i]; h.lives(m) && m.waitErr == nil {
			m.waitErr = fmt.Errorf("task %d did not end within %v of the kill", m.slab.TID, reapTimeout)
		}
	}
}

// allEnd reaps processes and waits for threads, until all have ended or the
// timeout passed.
func (h *Handle) allEnd(timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	return h.reapAll(deadline) && h.joinThreads(deadline)
}

// joinThreads waits until the kernel has cleared the tid of every thread. All
// were told to stop before, so one after the other is side by side.
func (h *Handle) joinThreads(deadline time.Time) bool {
	for i := range h.members {
		if h.members[i].proc >= 0 {
			continue
		}
		live := &h.members[i].slab.LiveTID
		for tid := atomic.LoadUint32(live); tid != 0; tid = atomic.LoadUint32(live) {
			left := time.Until(deadline)
			if left <= 0 {
				return false
			}
			futexWaitFor(live, tid, left)
		}
	}
	return true
}

// await waits until count says that every worker reached the state, or ended on
// the way, or the timeout passed; false if it passed. It runs on the cloner's
// thread.
func (h *Handle) await(count *uint32, want uint32, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		n := atomic.LoadUint32(count)
		if int(n) >= len(h.members) || int(n) >= len(h.members)-h.endedBefore(want) {
			return true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		futexWaitFor(count, n, min(left, lookInterval))
	}
}

// endedBefore reaps processes that ended, and counts the workers that ended and
// never reached the state.
func (h *Handle) endedBefore(want uint32) int {
	h.reapReady(0)
	ended := 0
	for i := range h.members {
		if m := &h.members[i]; state(m.slab) < want && !h.lives(m) {
			ended++
		}
	}
	return ended
}

// reapAll reaps processes as they end until all have, or the deadline passed.
func (h *Handle) reapAll(deadline time.Time) bool {
	for {
		left := 0
		for i := range h.procs {
			if !h.procs[i].reaped {
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

// reapReady waits for the first processes to end, reaps all that did and returns
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
			if h.reap(&h.procs[ev.Fd]) {
				reaped++
			}
		}
		ms = 0
	}
}

// reap collects the exit status of a process that ended. What it forked dies
// first, while its own pid still guards the process group's number.
func (h *Handle) reap(p *process) bool {
	if p.reaped {
		return false
	}
	unix.Kill(-p.pid, unix.SIGKILL)
	done, err := waitPidfd(p.pidfd, &p.exit)
	if err == nil && !done {
		return false
	}
	p.waitErr = err
	p.reaped = true
	disown(p.pid)
	unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, p.pidfd, nil)
	return true
}

// signal sends a signal to the process, unless it was reaped.
func (p *process) signal(sig unix.Signal) {
	if !p.reaped {
		unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	}
}

// kill sends SIGKILL to the process and to its process group.
func (p *process) kill() {
	if !p.reaped {
		unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// endThread ends a thread that does not stop: the fault handler of its own takes
// note of where it was and leaves. Where the thread is stuck in the kernel, this
// waits for it to come out.
func endThread(tid int) { unix.Tgkill(unix.Getpid(), tid, unix.SIGSEGV) }
