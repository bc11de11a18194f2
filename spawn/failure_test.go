package spawn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// TestStoppedFromOutside sends SIGSTOP to one of two workers, at the gate and in
// its loop: the other is collected, every wait is bounded, the stopped one is
// killed (S27, S29).
func TestStoppedFromOutside(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before the gate=%v", before), func(t *testing.T) {
			t.Parallel() // it waits for one bound after the other
			h, err := Spawn(Workload{Groups: groups2()})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if !before {
				h.Start()
				waitPasses(t, h)
			}
			if err := unix.Kill(h.WorkerPIDs()[1], unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			reports := collect(t, h)
			if took := time.Since(begin); took > readyTimeout+commitTimeout+reapTimeout+time.Second {
				t.Errorf("collecting took %v", took)
			}
			checkOrder(t, reports, 2)
			if !reports[0].Completed {
				t.Errorf("the other worker: %+v", reports[0].ExitInfo)
			}
			if r := reports[1]; r.Completed || r.Partial == before || r.ExitInfo == nil || r.ExitInfo.Kind != report.ExitTimedOut {
				t.Errorf("the stopped worker: completed %v, partial %v, %+v", r.Completed, r.Partial, r.ExitInfo)
			}
		})
	}
}

// TestBlockedWaitsEnd has workers wait without a timeout for a partner that
// does nothing any more, and sets their stop word without the signal that comes
// with it: they see it all the same (S32).
func TestBlockedWaitsEnd(t *testing.T) {
	for _, g := range []spec.Group{
		group(2, "pipe_io"), group(2, "cache_pipe"), group(2, "wake_chain", "depth", uint64(2)),
		group(2, "wake_chain", "depth", uint64(2), "wake", "futex"), group(2, "futex_ping_pong"),
	} {
		t.Run(g.Work.Type, func(t *testing.T) {
			h := start(t, g)
			waitPasses(t, h)
			stuck := h.WorkerPIDs()[1]
			if err := unix.Kill(stuck, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			s := h.members[0].slab
			atomic.StoreUint32(&s.Stop, 1)
			for range 100 {
				if atomic.LoadUint32(&s.State) == worker.StateCommitted {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			if state := atomic.LoadUint32(&s.State); state != worker.StateCommitted {
				t.Errorf("5s after its stop word was set the worker is in state %d", state)
			}
			if err := unix.Kill(stuck, unix.SIGCONT); err != nil {
				t.Error(err)
			}
			for _, r := range collect(t, h) {
				if !r.Completed {
					t.Errorf("worker %d: %+v", r.Index, r.ExitInfo)
				}
			}
		})
	}
}

// TestKilledAroundTheStop kills a worker at a random moment around the stop, many
// times: there are always as many reports as workers, each is real or explained,
// and a report is real whatever its process died of (S27, S28).
func TestKilledAroundTheStop(t *testing.T) {
	n := scaled(200)
	real, explained := 0, 0
	for range n {
		groups := []spec.Group{group(2, "pipe_io"), group(1, "spin_wait"), box("gi-box", 2, "spin_wait")}
		h, err := Spawn(Workload{Groups: groups})
		if err != nil {
			t.Fatal(err)
		}
		h.Start()
		victim := h.WorkerPIDs()[rand.IntN(len(h.WorkerPIDs()))]
		var wg sync.WaitGroup
		wg.Go(func() {
			for end := time.Now().Add(time.Duration(rand.IntN(4000)) * time.Microsecond); time.Now().Before(end); {
			}
			if Owns(victim) { // the pid may be another's by now
				unix.Kill(victim, unix.SIGKILL)
			}
		})
		reports := collect(t, h)
		wg.Wait()
		checkOrder(t, reports, 2, 1, 2)
		for _, r := range reports {
			switch {
			case r.Completed && r.ExitInfo == nil && !r.Partial:
				real++
			case !r.Completed && r.ExitInfo != nil && r.ExitInfo.Kind == report.ExitSignaled && r.ExitInfo.Signal == 9:
				explained++
			default:
				t.Errorf("completed %v, partial %v, %+v", r.Completed, r.Partial, r.ExitInfo)
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	if real+explained != n*5 || real < n*3 {
		t.Errorf("%d real and %d explained reports of %d", real, explained, n*5)
	}
	t.Logf("%d real, %d explained", real, explained)
}

// TestTheReportDecides gives the handle exit statuses that contradict the
// reports: the report decides whether it is real, the status only explains (S28).
func TestTheReportDecides(t *testing.T) {
	h := start(t, group(3, "spin_wait"))
	waitPasses(t, h)
	collect(t, h)
	h.procs[0].exit = exitStatus{killed: true, value: 9}
	h.procs[1].exit = exitStatus{}
	atomic.StoreUint32(&h.members[1].slab.State, worker.StateStopped)
	h.procs[2].waitErr = unix.ECHILD
	atomic.StoreUint32(&h.members[2].slab.State, worker.StateStopped)
	reports := collect(t, h)
	if r := reports[0]; !r.Completed || r.ExitInfo != nil || r.Partial {
		t.Errorf("a committed report of a killed process: completed %v, %+v", r.Completed, r.ExitInfo)
	}
	if r := reports[1]; r.Completed || r.ExitInfo == nil || r.ExitInfo.Kind != report.ExitExited || r.ExitInfo.Code != 0 || !r.Partial {
		t.Errorf("half a report of a process that exited with 0: completed %v, %+v", r.Completed, r.ExitInfo)
	}
	if r := reports[2]; r.Completed || r.ExitInfo == nil || r.ExitInfo.Kind != report.ExitWaitFailed || r.ExitInfo.Text != unix.ECHILD.Error() {
		t.Errorf("a process that could not be waited for: completed %v, %+v", r.Completed, r.ExitInfo)
	}
}

// TestMmapErrorsExplainThemselves (S12).
func TestMmapErrorsExplainThemselves(t *testing.T) {
	for errno, why := range map[unix.Errno]string{unix.ENOMEM: "vm.max_map_count", unix.EPERM: "seccomp", unix.EINVAL: "size"} {
		err := explainMmap(4096, errno)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "4096 bytes") {
			t.Errorf("%v is explained as %v", errno, err)
		}
	}
}

// TestMemoryRunsOut has a helper whose address space is limited: mapping the
// workload, its threads' stacks or its containers' fails, says so, and leaves
// nothing (S11, S12).
func TestMemoryRunsOut(t *testing.T) { runHelper(t, "memory limit") }

// TestDescriptorsRunOut has an unprivileged helper whose descriptors run out at
// every possible place of a Spawn (S8, S11).
func TestDescriptorsRunOut(t *testing.T) { runHelper(t, "descriptor limit", asNobody(t)) }

// TestThreadFails has an unprivileged helper in which the n-th thread cannot be
// started, for each n of a small workload (S11).
func TestThreadFails(t *testing.T) { runHelper(t, "process limit", asNobody(t)) }

// limitHelpers are the helper processes that limit themselves.
var limitHelpers = map[string]func() error{
	"memory limit":     limitMemory,
	"descriptor limit": limitDescriptors,
	"process limit":    limitThreads,
}

// limitMemory leaves room for less than what the workloads want.
func limitMemory() error {
	theCloner()
	startPoller()
	before := takeStock()
	var statm [2]uint64
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	fmt.Sscan(string(b), &statm[0], &statm[1])
	const room = 300 << 20
	if err := setLimit(unix.RLIMIT_AS, statm[0]*uint64(os.Getpagesize())+room); err != nil {
		return err
	}
	for _, c := range []struct {
		name, want string
		w          Workload
	}{
		{"slabs", "of shared memory", Workload{Samples: worker.ReservoirCap, Groups: []spec.Group{group(1000, "timer_latency")}}},
		{"threads", "map 4000 worker stacks", Workload{CloneMode: Thread, Groups: []spec.Group{group(4000, "spin_wait")}}},
		{"a container", "map 4000 worker stacks", Workload{Groups: []spec.Group{group(2, "pipe_io"), box("gi-box", 4000, "spin_wait")}}},
	} {
		h, err := Spawn(c.w)
		if err == nil {
			return fmt.Errorf("%s: Spawn succeeds, %v", c.name, h.Close())
		}
		if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), c.want) {
			return fmt.Errorf("%s: the error is %v", c.name, err)
		}
		if leaks := settledLeaks(before); leaks != "" {
			return fmt.Errorf("%s: left behind: %s", c.name, leaks)
		}
	}
	return runsStill(Workload{Groups: groups2()})
}

// limitDescriptors leaves 0, 1, 2, … descriptors free until a workload succeeds.
func limitDescriptors() error {
	const limit = 300
	takeStock() // makes the runtime open what it keeps
	if err := setLimit(unix.RLIMIT_NOFILE, limit); err != nil {
		return err
	}
	h, err := Spawn(Workload{Groups: []spec.Group{group(1000, "spin_wait")}})
	if err == nil || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "raise RLIMIT_NOFILE from 300 to") {
		return fmt.Errorf("1000 workers with %d descriptors: %v, %v", limit, h, err)
	}
	var fill []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		fill = append(fill, fd)
	}
	// Where a Spawn fails, by the number of descriptors that are free.
	var places []string
	for free := 0; ; free++ {
		h, err := Spawn(Workload{Groups: []spec.Group{group(2, "pipe_io"), group(3, "wake_chain", "depth", uint64(3)), group(1, "spin_wait")}})
		if err == nil {
			reports, err := h.StopAndCollect()
			if err = errors.Join(err, h.Close()); err != nil || len(reports) != 6 {
				return fmt.Errorf("with %d free descriptors: %d reports, %v", free, len(reports), err)
			}
			break
		}
		if !errors.Is(err, unix.EMFILE) {
			return fmt.Errorf("with %d free descriptors: %v", free, err)
		}
		if !strings.Contains(err.Error(), "ulimit -n") && !strings.HasPrefix(err.Error(), "create epoll") && !strings.HasPrefix(err.Error(), "watch") {
			return fmt.Errorf("with %d free descriptors the error has no remedy: %v", free, err)
		}
		place, _, _ := strings.Cut(err.Error(), " (")
		place = strings.TrimSuffix(place, ": "+unix.EMFILE.Error())
		if !slices.Contains(places, place) {
			places = append(places, place)
		}
		if len(births().owned) != 0 || len(fill) == 0 {
			return fmt.Errorf("with %d free descriptors: workers are left: %v", free, births().owned)
		}
		if n, err := unix.FcntlInt(uintptr(fill[len(fill)-1]), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("a descriptor of the spawner's was closed: %d, %w", n, err)
		}
		if opened := freeDescriptors(); opened != free {
			return fmt.Errorf("of %d free descriptors %d are left", free, opened)
		}
		unix.Close(fill[len(fill)-1])
		fill = fill[:len(fill)-1]
	}
	for _, want := range []string{"create epoll descriptor", "groups[0]: make pipe", "groups[1]: make pipe", "groups[0]: clone worker 0 of 2", "groups[2]: clone worker 0 of 1"} {
		if !slices.Contains(places, want) {
			return fmt.Errorf("no Spawn failed at %q, but at %q", want, places)
		}
	}
	return nil
}

// freeDescriptors counts how many descriptors can be opened.
func freeDescriptors() int {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return len(fds)
		}
		fds = append(fds, fd)
	}
}

// limitThreads lets the kernel give this user n more tasks, for each n below the
// number of workers.
func limitThreads() error {
	theCloner()
	startPoller()
	idleThreads(40) // the runtime must not need a new one meanwhile
	before := takeStock()
	for n := range 4 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		if err := setLimit(unix.RLIMIT_NPROC, uint64(len(tasks)+n)); err != nil {
			return err
		}
		h, err := Spawn(Workload{CloneMode: Thread, Groups: []spec.Group{group(2, "pipe_io"), group(2, "spin_wait")}})
		if err == nil {
			return fmt.Errorf("%d threads were enough, %v", n, h.Close())
		}
		want := fmt.Sprintf("groups[%d]: start thread %d", n/2, n%2)
		if !errors.Is(err, unix.EAGAIN) || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "ulimit -u") {
			return fmt.Errorf("with %d threads: the error is %v, want %s", n, err, want)
		}
		if leaks := settledLeaks(before); leaks != "" {
			return fmt.Errorf("with %d threads: left behind: %s", n, leaks)
		}
	}
	if err := setLimit(unix.RLIMIT_NPROC, 4096); err != nil {
		return err
	}
	return runsStill(Workload{CloneMode: Thread, Groups: groups2()})
}

// idleThreads makes the Go runtime have at least n threads, which it keeps.
func idleThreads(n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			ts := unix.NsecToTimespec(int64(100 * time.Millisecond))
			unix.Nanosleep(&ts, nil) // a system call that holds its thread
		})
	}
	wg.Wait()
}

// setLimit sets a soft limit, to no more than the hard one.
func setLimit(resource int, value uint64) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(resource, &lim); err != nil {
		return err
	}
	lim.Cur = min(value, lim.Max)
	if resource == unix.RLIMIT_NOFILE {
		lim.Max = lim.Cur
	}
	return unix.Setrlimit(resource, &lim)
}

// runsStill checks that a workload runs after all those that could not.
func runsStill(w Workload) error {
	h, err := Spawn(w)
	if err != nil {
		return err
	}
	reports, err := h.StopAndCollect()
	for _, r := range reports {
		if !r.Completed {
			err = errors.Join(err, fmt.Errorf("worker %d: %+v", r.Index, r.ExitInfo))
		}
	}
	return errors.Join(err, h.Close())
}

// TestLongGate leaves the gate closed for longer than workers wait: they leave
// with status 1 and say why (S19).
func TestLongGate(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes half a minute; try: make check-all")
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := Workload{CloneMode: mode, Groups: groups2()}
			if mode == Container {
				w.CloneMode, w.Groups[0].Pcomm = Fork, "gi-box"
			}
			h, err := Spawn(w)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			time.Sleep(gateTimeout + 500*time.Millisecond)
			for _, r := range collect(t, h) {
				if r.Completed || r.ExitInfo.Kind != report.ExitExited || r.ExitInfo.Code != worker.ExitGate {
					t.Errorf("completed %v, %+v", r.Completed, r.ExitInfo)
				}
				if !strings.Contains(r.ExitInfo.Text, "gate") {
					t.Errorf("the text is %q", r.ExitInfo.Text)
				}
			}
		})
	}
}

const gateTimeout = 30 * time.Second
