package spawn

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// TestHandlesDoNotWaitForEachOther has a handle be born, run and collected while
// another one runs, and again while that one waits for a worker that does not
// stop (S27).
func TestHandlesDoNotWaitForEachOther(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			slow := startMode(t, mode, group(1, faultType, "kind", "hang", "after", "1ms"))
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var late []report.Worker
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				late, _ = slow.Run(ctx, time.Minute)
			}()
			for _, phase := range []string{"runs", "hangs"} {
				quick, err := Spawn(Workload{Groups: []spec.Group{group(2, "spin_wait"), box("gi-box", 1, "spin_wait")}})
				if err != nil {
					t.Fatal(err)
				}
				reports, err := quick.Run(t.Context(), 10*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				checkOrder(t, reports, 2, 1)
				for _, r := range reports {
					if !r.Completed {
						t.Errorf("worker %d beside one that %s: %+v", r.Index, phase, r.ExitInfo)
					}
				}
				if err := quick.Close(); err != nil {
					t.Error(err)
				}
				select {
				case <-ended:
					t.Errorf("the handle was ready only when the other, which %s, had ended", phase)
				default:
				}
				waitRunning(t, slow)
				time.Sleep(50 * time.Millisecond) // the worker hangs from now on
				stop()
			}
			<-ended
			if len(late) != 1 || late[0].Completed || late[0].ExitInfo.Kind != report.ExitTimedOut {
				t.Errorf("the worker that hangs: %+v", late)
			}
		})
	}
}

// TestKeepersAreFew takes more handles at a time than threads wait for the next,
// and finds no more of those afterwards (S33).
func TestKeepersAreFew(t *testing.T) {
	var handles []*Handle
	for range maxIdle + 3 {
		h, err := Spawn(Workload{Groups: groups2()})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		handles = append(handles, h)
	}
	for _, h := range handles {
		checkOrder(t, collect(t, h), 2)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	keepers.Lock()
	defer keepers.Unlock()
	if n := len(keepers.idle); n > maxIdle {
		t.Errorf("%d threads wait for handles, the limit is %d", n, maxIdle)
	}
}

// TestThreadThatDoesNotComeUp has one of two threads never tell its tid, as one
// does that the kernel does not schedule: the birth fails after 2 s, and what did
// come up is ended (S23, S11).
func TestThreadThatDoesNotComeUp(t *testing.T) {
	before := takeStock()
	w := Workload{CloneMode: Thread, Groups: groups2()}
	plans, err := w.admit()
	if err != nil {
		t.Fatal(err)
	}
	h := &Handle{groups: w.Groups, plans: plans, cloner: theCloner(), keeper: takeKeeper()}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if h.arena, err = newArena(plans, 0, 0); err != nil {
		t.Fatal(err)
	}
	all := h.arena.slabs
	h.arena.slabs = all[:1]
	plans[0].group.Workers = 1
	h.cloner.do(func() { err = h.startThreads() })
	if err != nil {
		t.Fatal(err)
	}
	h.members = append(h.members, member{index: 1, slab: all[1], proc: -1})
	begin := time.Now()
	h.keeper.do(func() { err = h.awaitBirth() })
	if err == nil || !strings.Contains(err.Error(), "not all of 2 came up within 2s") {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(begin); took < threadTimeout || took > 3*threadTimeout {
		t.Errorf("waited for %v", took)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if leaks := settledLeaks(before); leaks != "" {
		t.Errorf("left behind: %s", leaks)
	}
}
