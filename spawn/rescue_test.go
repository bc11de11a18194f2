package spawn

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
