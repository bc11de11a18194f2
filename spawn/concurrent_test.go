package spawn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// TestClosedHandle calls every method of handles that are closed, twice, in every
// mode, started or not: nothing happens, and nobody touches memory that is gone
// (S33).
func TestClosedHandle(t *testing.T) {
	for _, mode := range modes {
		for _, started := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/started=%v", mode, started), func(t *testing.T) {
				g := group(2, "timer_latency", "interval", "1ms")
				w := Workload{CloneMode: mode, Groups: []spec.Group{g}, Samples: 10, Phases: 2}
				if mode == Container {
					w.CloneMode, w.Groups[0].Pcomm = Fork, "gi-box"
				}
				h, err := Spawn(w)
				if err != nil {
					t.Fatal(err)
				}
				if started {
					h.Start()
					waitPasses(t, h)
				}
				for range 2 {
					if err := h.Close(); err != nil {
						t.Error(err)
					}
				}
				checkClosed(t, h)
			})
		}
	}
	h, err := Spawn(Workload{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
	checkClosed(t, h)
}

func checkClosed(t *testing.T, h *Handle) {
	t.Helper()
	h.Start()
	h.Kill()
	h.SetPhase(1)
	h.AttachSamples(0, &report.Worker{TimerLatency: &report.Latency{}})
	if pids := h.WorkerPIDs(); pids != nil {
		t.Errorf("a closed handle has pids %v", pids)
	}
	for i, n := range h.SnapshotIterations() {
		if n != 0 || h.Alive()[i] {
			t.Errorf("worker %d of a closed handle made %d passes, lives: %v", i, n, h.Alive()[i])
		}
	}
	if h.Look() || !h.InPhase() || !h.AwaitWork(time.Hour) || h.Notes() != nil || h.Timing().Collect != 0 {
		t.Errorf("a closed handle lives: %v, notes %q, %+v", h.Look(), h.Notes(), h.Timing())
	}
	if err := h.SetAffinity(0, spec.CPUList{0}); err == nil {
		t.Error("SetAffinity of a closed handle is accepted")
	}
	if _, err := h.StopAndCollect(); err == nil {
		t.Error("StopAndCollect of a closed handle is accepted")
	}
	if _, err := h.Run(context.Background(), time.Hour); err == nil {
		t.Error("Run of a closed handle is accepted")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// TestCallsFromEverywhere has many goroutines call the methods of one handle in
// any order until one of them closes it: whoever gets reports gets all of them, in
// order, each real or explained, and nothing crashes or hangs (S25 to S31).
func TestCallsFromEverywhere(t *testing.T) {
	for round := range 12 {
		mode := modes[round%len(modes)]
		groups := []spec.Group{group(2, "pipe_io"), group(2, "spin_wait")}
		w := Workload{CloneMode: mode, Groups: groups, Phases: 100}
		if mode == Container {
			w.CloneMode, groups[0].Pcomm = Fork, "gi-box"
		}
		h, err := Spawn(w)
		if err != nil {
			t.Fatal(err)
		}
		check := func(reports []report.Worker, err error) {
			if err != nil {
				return // closed or collected meanwhile
			}
			checkOrder(t, reports, 2, 2)
			for _, r := range reports {
				if r.Completed == (r.ExitInfo != nil) {
					t.Errorf("%s worker %d: completed %v, %+v", mode, r.Index, r.Completed, r.ExitInfo)
				}
			}
		}
		var callers, watchers sync.WaitGroup
		ended := make(chan struct{})
		watch := func(call func(i uint32)) {
			watchers.Go(func() {
				for i := uint32(1); ; i++ {
					select {
					case <-ended:
						return
					default:
						call(i)
					}
				}
			})
		}
		watch(func(uint32) { h.SnapshotIterations(); h.Alive(); h.Timing() })
		watch(func(i uint32) { h.SetPhase(i); h.InPhase(); h.WorkerPIDs() })
		watch(func(i uint32) { h.SetAffinity(int(i%4), spec.CPUList{int(i % 2)}); h.Spawner() })
		callers.Go(func() { check(h.Run(t.Context(), time.Duration(round)*5*time.Millisecond)) })
		callers.Go(func() { h.Start(); h.Look(); check(h.StopAndCollect()) })
		if round%4 == 3 {
			callers.Go(func() { h.Kill(); h.Notes() })
		}
		if round%2 == 1 {
			callers.Go(func() { time.Sleep(time.Duration(round) * time.Millisecond); h.Close() })
		}
		callers.Wait()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		close(ended)
		watchers.Wait()
	}
}

// TestCloseEndsARun closes a handle of which another goroutine runs the workers
// for an hour (S31).
func TestCloseEndsARun(t *testing.T) {
	for _, mode := range modes {
		h := startMode(t, mode, group(2, "spin_wait"))
		waitPasses(t, h)
		ran := make(chan error)
		go func() {
			reports, err := h.Run(context.Background(), time.Hour)
			if err == nil && len(reports) != 2 {
				err = fmt.Errorf("%d reports", len(reports))
			}
			ran <- err
		}()
		waitFor(t, "Run", func() bool { return !h.turn.TryLock() || unlocked(h) })
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// unlocked gives the turn back that TryLock took, and is false.
func unlocked(h *Handle) bool {
	h.turn.Unlock()
	return false
}

// TestRunForever runs for as long as a Duration can be, until told to stop.
func TestRunForever(t *testing.T) {
	h := start(t, group(1, "spin_wait"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	time.AfterFunc(50*time.Millisecond, stop)
	reports, err := h.Run(ctx, 1<<63-1)
	if err != nil || len(reports) != 1 || !reports[0].Completed || h.Timing().Run < 50*time.Millisecond {
		t.Errorf("ran for %v: %+v, %v", h.Timing().Run, reports, err)
	}
}

// TestManySpawners has goroutines give birth to workloads side by side, with
// Spawns that fail among them (S11, S13).
func TestManySpawners(t *testing.T) {
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			w := Workload{CloneMode: modes[i%2], Groups: []spec.Group{group(2, "pipe_io")}}
			if i%4 == 3 {
				w = Workload{Groups: []spec.Group{group(2, "pipe_io"), group(1, "spin_wait")}, Cgroups: []string{"", "/proc"}}
			}
			h, err := Spawn(w)
			if i%4 == 3 {
				if !errors.Is(err, unix.EBADF) {
					t.Errorf("born into /proc: %v", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			reports, err := h.Run(t.Context(), 20*time.Millisecond)
			if err = errors.Join(err, h.Close()); err != nil || len(reports) != 2 {
				t.Errorf("%d reports, %v", len(reports), err)
			}
			for _, r := range reports {
				if !r.Completed {
					t.Errorf("worker %d: %+v", r.Index, r.ExitInfo)
				}
			}
		})
	}
	all.Wait()
}
