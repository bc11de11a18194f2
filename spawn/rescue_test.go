package spawn

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// starvedCgroup makes a cgroup whose tasks have 1 ms of CPU a second between them,
// with whichever controller there is: of v2 or of v1.
func starvedCgroup(t *testing.T) string {
	t.Helper()
	const v1 = "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(v1 + "/cpu.cfs_quota_us"); err != nil {
		dir := testCgroup(t, "cpu")
		setCgroup(t, dir, "cpu.max", "1000 1000000")
		return dir
	}
	dir := filepath.Join(v1, fmt.Sprintf("guestinit-test-%d-%d", os.Getpid(), cgroupSerial.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		unable(t, "making a cgroup needs root: %v", err)
	}
	t.Cleanup(func() {
		waitFor(t, "the cgroup to be empty", func() bool { return unix.Rmdir(dir) == nil })
	})
	setCgroup(t, dir, "cpu.cfs_period_us", "1000000")
	setCgroup(t, dir, "cpu.cfs_quota_us", "1000")
	return dir
}

// starve moves the workers of a handle to a starved cgroup and waits until they
// have used up what it has.
func starve(t *testing.T, h *Handle) {
	t.Helper()
	dir := starvedCgroup(t)
	for _, pid := range h.WorkerPIDs() {
		setCgroup(t, dir, "cgroup.procs", strconv.Itoa(pid))
	}
	waitFor(t, "throttling", func() bool {
		stat, _ := os.ReadFile(dir + "/cpu.stat")
		_, after, _ := strings.Cut(string(stat), "nr_throttled ")
		n, _, _ := strings.Cut(after, "\n")
		return n != "" && n != "0"
	})
}

// TestStarvedWorkersCommit has more workers in a cgroup than its quota lets end
// within the bounds: all commit real reports all the same, and what was done for
// that is told (S27).
func TestStarvedWorkersCommit(t *testing.T) {
	h := start(t, group(30, "spin_wait"), box("gi-box", 10, "yield_heavy"), group(1, "spin_wait"))
	waitPasses(t, h)
	starve(t, h)
	reports, err := h.Run(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	checkOrder(t, reports, 30, 10, 1)
	for i, r := range reports {
		if !r.Completed || r.Iterations == 0 {
			t.Errorf("worker %d: %d passes, %+v", i, r.Iterations, r.ExitInfo)
		}
	}
	if notes := strings.Join(h.Notes(), "\n"); !strings.Contains(notes, "real-time class") {
		t.Errorf("the notes are %q", notes)
	}
}

// TestStarvedWorkersDie closes a handle whose workers get no CPU even to die
// (S31).
func TestStarvedWorkersDie(t *testing.T) {
	h := start(t, group(30, "spin_wait"))
	waitPasses(t, h)
	starve(t, h)
	begin := time.Now()
	if err := h.Close(); err != nil {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestRescueKnowsItsTasks has a container whose slab holds a tid that belongs to
// another process, as one of a killed container may: that task is left alone.
func TestRescueKnowsItsTasks(t *testing.T) {
	h := start(t, box("gi-box", 1, "spin_wait"))
	waitPasses(t, h)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	live := &h.members[0].slab.LiveTID
	was := atomic.SwapUint32(live, uint32(unix.Gettid()))
	h.keeper.do(func() {
		h.rescueNs = 1 // long ago
		h.rescue(time.Second)
	})
	atomic.StoreUint32(live, was)
	if a, err := unix.SchedGetAttr(0, 0); err != nil || a.Policy != unix.SCHED_NORMAL {
		t.Errorf("the tests run with %+v, %v", a, err)
	}
	if h.rescued != 1 {
		t.Errorf("%d tasks were raised, want the container's leader", h.rescued)
	}
	collect(t, h)
}
