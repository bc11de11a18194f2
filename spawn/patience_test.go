package spawn

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// TestPatience: a wait for many workers goes on while some get there, up to its
// last moment, and one that nobody is to make longer does not (S27).
func TestPatience(t *testing.T) {
	begin := time.Now()
	h := &Handle{members: make([]member, 1000)}
	p := h.patience(100 * time.Millisecond)
	if left := p.left(); left > 100*time.Millisecond {
		t.Errorf("%v are left of 100ms", left)
	}
	p.progress()
	if left := p.left(); left <= 100*time.Millisecond || left > stallTimeout {
		t.Errorf("%v are left after progress, want up to %v", left, stallTimeout)
	}
	if most := begin.Add(100*time.Millisecond + 1000*workerTime); p.last.Before(most) || p.last.After(most.Add(time.Second)) {
		t.Errorf("the last moment is %v after the begin", p.last.Sub(begin))
	}
	p.last = p.deadline
	for range 3 {
		p.progress()
	}
	if p.deadline != p.last {
		t.Errorf("progress moves the deadline beyond the last moment, by %v", p.deadline.Sub(p.last))
	}
	long := h.patience(time.Hour)
	was := long.deadline
	if long.progress(); long.deadline != was {
		t.Errorf("progress makes a wait shorter, by %v", was.Sub(long.deadline))
	}
	fixed := until(begin)
	if fixed.progress(); fixed.left() > 0 {
		t.Errorf("a fixed wait has %v left", fixed.left())
	}
}

// TestSlowArrivals lets workers reach their loops one after the other over longer
// than the wait for them: it goes on while they do. One more that does not arrive
// is given up (S27).
func TestSlowArrivals(t *testing.T) {
	const workers = 60
	h, err := Spawn(Workload{Groups: []spec.Group{group(workers, "bursty", "sleep_duration", "10s")}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	pids := h.WorkerPIDs()
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGSTOP)
		waitState(t, pid, "T")
	}
	h.Start()
	go func() {
		for i := range workers - 1 {
			time.Sleep(5 * time.Millisecond)
			unix.Kill(pids[i], unix.SIGCONT)
		}
	}()
	arrived := func() bool {
		var all bool
		h.keeper.do(func() {
			all = h.await(&h.arena.shared.ReadyCount, worker.StateRunning, 100*time.Millisecond)
		})
		return all
	}
	if arrived() {
		t.Error("all arrived, one of them stopped")
	}
	if n := atomic.LoadUint32(&h.arena.shared.ReadyCount); n != workers-1 {
		t.Errorf("%d of %d workers were waited for", n, workers-1)
	}
	unix.Kill(pids[workers-1], unix.SIGCONT)
	if !arrived() {
		t.Error(fmt.Sprint("the last one did not arrive, states ", state(h.members[workers-1].slab)))
	}
	for _, r := range collect(t, h) {
		if !r.Completed {
			t.Errorf("worker %d: %+v", r.Index, r.ExitInfo)
		}
	}
}
