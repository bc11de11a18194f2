package spawn

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// churnHeap keeps the Go runtime of the spawner busy until the function that it
// returns is called: garbage, collections, stacks that grow, a heap that does.
func churnHeap() (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			var kept [][]byte
			for !done.Load() {
				switch i {
				case 0:
					runtime.GC()
				case 1:
					if kept = append(kept, make([]byte, 1<<20)); len(kept) == 64 {
						kept = nil
					}
				case 2:
					deep(200)
					runtime.Gosched()
				}
			}
		})
	}
	return func() {
		done.Store(true)
		wg.Wait()
	}
}

// deep grows the stack of its goroutine.
func deep(n int) int {
	var frame [256]byte
	if n == 0 {
		return 0
	}
	frame[n%256] = byte(n)
	return deep(n-1) + int(frame[n%256])
}

// TestThreadsBesideTheRuntime has thread workers run unharmed while the spawner
// allocates, collects garbage and grows its heap and stacks (S6, S20, S23, S27).
func TestThreadsBesideTheRuntime(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h := startMode(t, Thread, group(2, "spin_wait"), group(2, "futex_ping_pong"), group(2, "pipe_io"),
		group(1, "timer_latency", "interval", "500us"), group(2, "page_fault_churn"), group(3, "epoll_storm"))
	stop := churnHeap()
	for _, tid := range h.WorkerPIDs() {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); err != nil {
			t.Errorf("a tid that Spawn published is no thread of this process: %v", err)
		}
	}
	waitPasses(t, h)
	time.Sleep(300 * time.Millisecond)
	await(t, "five collections beside the workers", func() bool {
		runtime.ReadMemStats(&after)
		return after.NumGC-before.NumGC >= 5
	})
	reports := collect(t, h)
	stop()
	if len(reports) != 12 {
		t.Fatalf("%d reports for 12 workers", len(reports))
	}
	for _, r := range reports {
		if !r.Completed || r.Iterations == 0 || r.WorkUnits == 0 {
			t.Errorf("%s worker %d: completed %v, %d passes, %v", r.WorkType, r.Index, r.Completed, r.Iterations, r.ExitInfo)
		}
	}
}

// TestThreadFaults has a thread fail in each way that a thread can: its report
// tells, its siblings and the process go on (S27, S28, S29).
func TestThreadFaults(t *testing.T) {
	for _, c := range []struct {
		kind string
		want report.ExitInfo
		text string
	}{
		{"exit", report.ExitInfo{Kind: report.ExitExited, Code: 3}, ""},
		{"sigsegv", report.ExitInfo{Kind: report.ExitSignaled, Signal: 11}, "SIGSEGV at address 0x8"},
		{"panic", report.ExitInfo{Kind: report.ExitPanicked, Signal: 11}, "out of range"},
		{"stack_overflow", report.ExitInfo{Kind: report.ExitPanicked, Signal: 11}, "stack overflow"},
		{"hang", report.ExitInfo{Kind: report.ExitTimedOut, Signal: 11}, "within 5s"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			h := startMode(t, Thread, group(2, "pipe_io"), group(1, faultType, "kind", c.kind), group(1, "yield_heavy"))
			waitRunning(t, h)
			time.Sleep(600 * time.Millisecond)
			recovers(t)
			reports := collect(t, h)
			if len(reports) != 4 {
				t.Fatalf("%d reports for 4 workers", len(reports))
			}
			for _, i := range []int{0, 1, 3} {
				if !reports[i].Completed {
					t.Errorf("worker %d did not complete: %+v", i, reports[i].ExitInfo)
				}
			}
			r := reports[2]
			if r.Completed || !r.Partial || r.GroupIndex != 1 || r.Index != 0 || r.TID == 0 || r.Iterations == 0 || r.CPUNs == 0 {
				t.Errorf("the report of the failed worker is %+v", r)
			}
			if c.kind == "hang" { // ended from outside, in the loop that ignores the request
				e := r.ExitInfo
				if e.Kind != c.want.Kind || e.Signal != c.want.Signal || !strings.Contains(e.Text, c.text) || !strings.Contains(strings.Join(e.Stack, "\n"), "worker.ThreadMain") {
					t.Errorf("exit info is %+v", e)
				}
				return
			}
			checkExit(t, r.ExitInfo, c.want, c.text)
		})
	}
}

// recovers checks that a nil dereference of ordinary Go code panics as ever.
func recovers(t *testing.T) {
	t.Helper()
	defer func() {
		if err, ok := recover().(runtime.Error); !ok || !strings.Contains(err.Error(), "nil pointer") {
			t.Errorf("a nil dereference of the spawner recovers as %v", err)
		}
	}()
	var g *spec.Group
	if runtime.NumGoroutine() > 0 {
		t.Errorf("read %d through nil", g.Workers)
	}
}

// TestPanicsOfTheSpawner has ordinary Go code fault while thread workers run, in
// many goroutines, and after a worker has: recover works (S29).
func TestPanicsOfTheSpawner(t *testing.T) {
	h := startMode(t, Thread, group(2, "spin_wait"), group(1, faultType, "kind", "sigsegv", "after", "1ms"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				recovers(t)
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	waitPasses(t, h)
	reports := collect(t, h)
	if !reports[0].Completed || !reports[1].Completed || reports[2].Completed {
		t.Errorf("reports %+v", reports)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	recovers(t)
}

// TestThreadsStayInTheirCgroup: what would move the spawner is refused with the
// reason (S21, S25).
func TestThreadsStayInTheirCgroup(t *testing.T) {
	h := startMode(t, Thread, group(1, "spin_wait"))
	if pids, err := h.CgroupProcs(); err == nil || !strings.Contains(err.Error(), "moves the spawner") {
		t.Errorf("CgroupProcs of threads gives %v, %v", pids, err)
	}
	w := Workload{CloneMode: Thread, Groups: []spec.Group{group(1, "spin_wait")}, Cgroups: []string{"/sys/fs/cgroup"}}
	if _, err := Spawn(w); err == nil || !strings.Contains(err.Error(), "clone_mode fork") {
		t.Errorf("threads with a cgroup: %v", err)
	}
}

// TestSetAffinityOfMembers: a thread of the spawner moves, a container's member
// is refused with the remedy (S26).
func TestSetAffinityOfMembers(t *testing.T) {
	h := startMode(t, Thread, group(1, "spin_wait"))
	if err := h.SetAffinity(0, spec.CPUList{0}); err != nil {
		t.Error(err)
	}
	waitRunning(t, h)
	box := startMode(t, Container, group(1, "spin_wait"))
	if err := box.SetAffinity(0, spec.CPUList{0}); err == nil || !strings.Contains(err.Error(), "give its group an affinity") {
		t.Errorf("SetAffinity in a container: %v", err)
	}
	if r := collect(t, h)[0]; r.CPUsUsed == "" || !r.Completed {
		t.Errorf("report %+v", r)
	}
}

// TestSpawnerKeepsItsMask: the clones block every signal for a moment, and the
// cloner's mask comes back whether they succeed or fail (S13); the worker has
// the mask of its spawner, with SIGUSR1 handled and let through (S17).
func TestSpawnerKeepsItsMask(t *testing.T) {
	c := theCloner()
	was := maskOf(t, c)
	h := start(t, group(1, "spin_wait"))
	waitRunning(t, h)
	dir := fmt.Sprintf("/proc/%d", h.WorkerPIDs()[0])
	const stopBit = 1 << (10 - 1) // SIGUSR1
	blocked, err := signalMask(dir, "SigBlk")
	if err != nil || blocked != was&^stopBit {
		t.Errorf("the worker blocks %x, its spawner %x, %v", blocked, was, err)
	}
	if caught, err := signalMask(dir, "SigCgt"); err != nil || caught&stopBit == 0 {
		t.Errorf("the worker handles %x, %v", caught, err)
	}
	w := Workload{Groups: []spec.Group{group(1, "spin_wait")}, Cgroups: []string{"/proc"}} // no cgroup: the clone fails
	if _, err := Spawn(w); err == nil {
		t.Error("born into /proc")
	}
	if now := maskOf(t, c); now != was {
		t.Errorf("the cloner's mask was %x and is %x", was, now)
	}
}

func maskOf(t *testing.T, c *thread) uint64 {
	t.Helper()
	var mask uint64
	var err error
	c.do(func() { mask, err = signalMask("/proc/thread-self", "SigBlk") })
	if err != nil {
		t.Fatal(err)
	}
	return mask
}

// TestCallerThreadsMayEnd calls Spawn from a thread that ends: the workers are
// tied to the cloner's, not to the caller's (S15).
func TestCallerThreadsMayEnd(t *testing.T) {
	handles := make(chan *Handle)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		h, err := Spawn(Workload{Groups: groups2()})
		if err != nil {
			t.Error(err)
		}
		handles <- h
	}()
	h := <-handles
	if h == nil {
		return
	}
	defer h.Close()
	h.Start()
	waitPasses(t, h)
	time.Sleep(100 * time.Millisecond)
	if reports := collect(t, h); !reports[0].Completed || !reports[1].Completed {
		t.Errorf("reports %+v", reports)
	}
}

// TestReadyComesBehindTheGate: nobody is ready or has made a pass before Start,
// and a container is ready when all its threads live (S19, S20, S23).
func TestReadyComesBehindTheGate(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			groups := []spec.Group{group(3, "spin_wait")}
			w := Workload{CloneMode: mode, Groups: groups}
			if mode == Container {
				w.CloneMode, groups[0].Pcomm = Fork, "gi-box"
			}
			h, err := Spawn(w)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			time.Sleep(50 * time.Millisecond)
			if n := atomic.LoadUint32(&h.arena.shared.BornCount); n != 3 {
				t.Errorf("%d workers at the gate", n)
			}
			if n := atomic.LoadUint32(&h.arena.shared.ReadyCount); n != 0 || !slices.Equal(h.SnapshotIterations(), []uint64{0, 0, 0}) {
				t.Errorf("before Start %d workers are ready, passes %v", n, h.SnapshotIterations())
			}
			h.Start()
			h.Start() // changes nothing
			waitPasses(t, h)
			for _, p := range h.procs {
				if p.container != nil && atomic.LoadUint32(&p.container.Alive) != 3 {
					t.Errorf("ready with %d of 3 members", p.container.Alive)
				}
			}
			collect(t, h)
		})
	}
}
