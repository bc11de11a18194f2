package spawn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/worker"
)

// StopAndCollect stops all workers and returns exactly one report per worker, in
// order of group and index. It starts workers that nobody started. Workers are
// collected side by side, and every wait is bounded: at most 5 s until all are
// in their loops, 5 s to commit, then SIGKILL, and 3 s to reap. Where thousands of
// workers take longer than that each bound moves, while some of them get there
// every second, by 20 ms a worker at most. Calling it again returns the same
// reports.
func (h *Handle) StopAndCollect() ([]report.Worker, error) {
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.closed.Load() {
		return nil, errors.New("stop and collect: the handle is closed")
	}
	if len(h.members) == 0 {
		return nil, nil
	}
	if !h.collected.Load() {
		h.keeper.do(func() {
			h.open()
			h.collect()
		})
		h.finishPrograms()
	}
	return h.reports(), nil
}

// Run starts the workers if nobody did, lets them run for d and then does what
// StopAndCollect does, all on the thread that comes before the workers: the stop
// is on time whatever they do to the rest of the process. It stops early when
// ctx ends or when no worker is left; Timing tells how long they ran.
func (h *Handle) Run(ctx context.Context, d time.Duration) ([]report.Worker, error) {
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.closed.Load() {
		return nil, errors.New("run: the handle is closed")
	}
	if h.collected.Load() {
		return nil, errors.New("run: the workers were collected already")
	}
	if len(h.members) == 0 {
		return nil, nil
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create event descriptor: %w", err)
	}
	defer unix.Close(wake)
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: wakeEvent}
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		return nil, fmt.Errorf("watch event descriptor: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(woken)
	})
	h.keeper.do(func() {
		h.open()
		h.waitUntil(h.openedNs.Load() + int64(min(d, maxRun)))
		unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, wake, nil)
		h.collect()
	})
	if !stop() {
		<-woken // the descriptor must outlive the write
	}
	h.finishPrograms()
	return h.reports(), nil
}

// maxRun bounds what Run waits for, so that no sum of it with the clock overflows.
const maxRun = 100 * 365 * 24 * time.Hour

// wakeEvent is the Fd of the event that ends Run early; processes have their
// index there.
const wakeEvent = -1

// waitUntil reaps processes that end until CLOCK_MONOTONIC reaches deadline, Run
// is told to stop, or no worker lives.
func (h *Handle) waitUntil(deadline int64) {
	for !h.cancelled {
		left := time.Duration(deadline - monotonic())
		if left <= 0 || h.noneLives() {
			return
		}
		if len(h.procs) == 0 {
			left = min(left, lookInterval) // nothing tells of the end of a thread
		}
		h.reapReady(left)
	}
}

func (h *Handle) noneLives() bool {
	for i := range h.members {
		if h.lives(&h.members[i]) {
			return false
		}
	}
	return true
}

// reports makes the reports of all workers.
func (h *Handle) reports() []report.Worker {
	reports := make([]report.Worker, len(h.members))
	for i := range reports {
		reports[i] = h.report(i)
	}
	return reports
}

// collect runs on the keeper's thread.
func (h *Handle) collect() {
	h.collected.Store(true)
	h.await(&h.arena.shared.ReadyCount, worker.StateRunning, readyTimeout)
	h.stoppedNs.Store(monotonic())
	h.expectEnds()
	for i := range h.members {
		atomic.StoreUint32(&h.members[i].slab.Stop, 1)
	}
	begin := time.Now()
	for _, p := range h.procs {
		if p.program != nil {
			p.stopProgram()
		} else {
			p.signal(unix.SIGUSR1)
		}
	}
	h.endPrograms(begin)
	h.endAll(time.Until(begin.Add(commitTimeout)))
	h.endedNs.Store(monotonic())
	h.settle()
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
				endThread(int(atomic.LoadUint32(&m.slab.LiveTID))) // the kernel's, which is there from the clone on
			}
		}
	}
	for _, p := range h.procs {
		p.kill()
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

// allEnd reaps processes and waits for threads, until all have ended or patience
// with them has.
func (h *Handle) allEnd(timeout time.Duration) bool {
	p := h.patience(timeout)
	return h.reapAll(p) && h.joinThreads(p)
}

// joinThreads waits until the kernel has cleared the tid of every thread. All
// were told to stop before, so one after the other is side by side.
func (h *Handle) joinThreads(p *patience) bool {
	for i := range h.members {
		if h.members[i].proc >= 0 {
			continue
		}
		live := &h.members[i].slab.LiveTID
		for tid := atomic.LoadUint32(live); tid != 0; tid = atomic.LoadUint32(live) {
			left := p.left()
			if left <= 0 {
				return false
			}
			futexWaitFor(live, tid, h.rescue(left))
		}
		p.progress()
	}
	return true
}

// await waits until count says that every worker reached the state, or ended on
// the way, or patience ends; false if it does. It runs on the keeper's thread.
func (h *Handle) await(count *uint32, want uint32, timeout time.Duration) bool {
	return h.awaitFor(count, want, h.patience(timeout))
}

// awaitFor is await with a patience. Only the worker that makes the count complete
// wakes the keeper, which looks for others that ended from time to time: each look
// takes time in proportion to their number.
func (h *Handle) awaitFor(count *uint32, want uint32, p *patience) bool {
	all := uint32(len(h.members))
	look := lookInterval + time.Duration(all)*time.Microsecond*10
	defer atomic.StoreUint32(&h.arena.shared.Awaited, 0)
	for seen := uint32(0); ; {
		if n := atomic.LoadUint32(count); n >= all {
			return true
		} else if n > seen {
			seen = n
			p.progress()
		}
		enough := all - uint32(h.endedBefore(want))
		atomic.StoreUint32(&h.arena.shared.Awaited, enough)
		for next := time.Now().Add(look); ; {
			n := atomic.LoadUint32(count)
			if n >= enough {
				return true
			}
			left := min(p.left(), time.Until(next))
			if left <= 0 {
				break
			}
			futexWaitFor(count, n, left)
		}
		if p.left() <= 0 && atomic.LoadUint32(count) <= seen {
			return false
		}
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

// reapAll reaps processes as they end until all have, or patience ends.
func (h *Handle) reapAll(p *patience) bool {
	for {
		left := 0
		for _, proc := range h.procs {
			if !proc.reaped.Load() {
				left++
			}
		}
		if left == 0 {
			return true
		}
		for left > 0 {
			wait := p.left()
			if wait <= 0 {
				return false
			}
			if n := h.reapReady(h.rescue(wait)); n > 0 {
				left -= n
				p.progress()
			}
		}
	}
}

// reapReady waits for the first processes to end, reaps all that did and returns
// their number.
func (h *Handle) reapReady(wait time.Duration) int {
	var events [128]unix.EpollEvent
	if len(h.held) > 0 {
		wait = min(wait, lookInterval)
	}
	ms := int((min(wait, time.Hour) + time.Millisecond - 1) / time.Millisecond)
	reaped := h.reapHeld()
	for {
		n, err := unix.EpollWait(h.epoll, events[:], ms)
		if err != nil || n == 0 {
			return reaped // EINTR: the caller waits again
		}
		for _, ev := range events[:n] {
			if ev.Fd == wakeEvent {
				h.cancelled = true
			} else if h.reap(h.procs[ev.Fd]) {
				reaped++
			}
		}
		ms = 0
	}
}

// reap collects the exit status of a process that ended. What it forked dies
// first, while its own pid still guards the process group's number.
func (h *Handle) reap(p *process) bool {
	if p.reaped.Load() {
		return false
	}
	unix.Kill(-p.pid, unix.SIGKILL)
	if p.program != nil {
		p.program.measure(p.pid)
	}
	done, err := waitPidfd(p.pidfd, &p.exit)
	if err == nil && !done {
		h.hold(p)
		return false
	}
	if p.program != nil && err == nil {
		p.program.judge(&p.exit, h.stoppedNs.Load() != 0)
	}
	p.waitErr = err
	p.reaped.Store(true)
	if !p.held {
		unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, p.pidfd, nil)
	}
	return true
}

// hold takes note of a process that has ended and cannot be reaped: a debugger
// that traces it must do so first. Its pidfd is readable all that time.
func (h *Handle) hold(p *process) {
	if !p.held {
		p.held = true
		h.held = append(h.held, p)
		unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, p.pidfd, nil)
	}
}

// reapHeld reaps those that were let go, and returns their number.
func (h *Handle) reapHeld() int {
	n := len(h.held)
	h.held = slices.DeleteFunc(h.held, h.reap)
	return n - len(h.held)
}

// signal sends a signal to the process, unless it was reaped.
func (p *process) signal(sig unix.Signal) {
	if !p.reaped.Load() {
		unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	}
}

// kill sends SIGKILL to the process and to its process group.
func (p *process) kill() {
	if !p.reaped.Load() {
		unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// endThread ends a thread that does not stop: the fault handler of its own takes
// note of where it was and leaves. Where the thread is stuck in the kernel, this
// waits for it to come out.
func endThread(tid int) { unix.Tgkill(unix.Getpid(), tid, unix.SIGSEGV) }
