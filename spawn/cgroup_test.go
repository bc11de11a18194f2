package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// testCgroup makes a cgroup below this process's own, with the controllers, and
// removes it after the test.
func testCgroup(t *testing.T, controllers ...string) string {
	t.Helper()
	root, own, err := cgroup2()
	if err != nil {
		unable(t, "%v", err)
	}
	dir := filepath.Join(root, own, fmt.Sprintf("guestinit-test-%d-%d", os.Getpid(), cgroupSerial.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		unable(t, "making a cgroup needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := removeCgroup(dir); err != nil {
			t.Error(err)
		}
	})
	have, err := os.ReadFile(dir + "/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range controllers {
		if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+c+" ") {
			unable(t, "cgroup v2 has no controller %s here: mount it there (cgroup_no_v1=all), and enable it in cgroup.subtree_control", c)
		}
	}
	return dir
}

func setCgroup(t *testing.T, dir, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// members lists the processes in a cgroup.
func members(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// TestBornInCgroup has two groups born in cgroups of their own, before Start,
// and a third moved there later (S21, S25).
func TestBornInCgroup(t *testing.T) {
	one, two, three := testCgroup(t), testCgroup(t), testCgroup(t)
	h, err := Spawn(Workload{Groups: []spec.Group{group(2, "spin_wait"), box("gi-box", 2, "spin_wait"), group(1, "spin_wait")}, Cgroups: []string{one, two}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	pids := h.WorkerPIDs()
	if got, want := members(t, one), fmt.Sprint(pids[0], " ", pids[1]); got != want {
		t.Errorf("the first group's cgroup has %q, want %q", got, want)
	}
	if got, want := members(t, two), fmt.Sprint(pids[2]); got != want {
		t.Errorf("the container's cgroup has %q, want %q", got, want)
	}
	if procs, err := h.CgroupProcs(); err != nil || len(procs) != 4 {
		t.Fatalf("CgroupProcs gives %v, %v", procs, err)
	}
	setCgroup(t, three, "cgroup.procs", strconv.Itoa(pids[3]))
	h.Start()
	waitPasses(t, h)
	for i, dir := range []string{one, one, two, three} {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pids[i]))
		if err != nil || !strings.Contains(string(line), "/"+filepath.Base(dir)+"\n") {
			t.Errorf("process %d is in %s, want %s, %v", i, line, dir, err)
		}
	}
	checkOrder(t, collect(t, h), 2, 2, 1)
}

// TestNoSuchCgroup: the error names the directory, and nothing is left (S11).
func TestNoSuchCgroup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nowhere")
	h, err := Spawn(Workload{Groups: []spec.Group{group(1, "spin_wait"), group(2, "spin_wait")}, Cgroups: []string{"", dir}})
	if err == nil {
		h.Close()
		t.Fatal("born in a cgroup that does not exist")
	}
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "groups[1]: open cgroup "+dir) {
		t.Errorf("the error is %v", err)
	}
	wantNothingLeft(t)
}

// wantNothingLeft checks that no worker of this process lives.
func wantNothingLeft(t *testing.T) {
	t.Helper()
	births().Lock()
	defer births().Unlock()
	if len(births().owned) != 0 {
		t.Errorf("workers are still owned: %v", births().owned)
	}
}

// TestFrozenCgroup freezes workers: those beside them are collected in time, and
// the frozen ones are killed with what they had measured (S27, S29).
func TestFrozenCgroup(t *testing.T) {
	dir := testCgroup(t)
	h, err := Spawn(Workload{Groups: []spec.Group{group(2, "spin_wait"), group(2, "yield_heavy")}, Cgroups: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.Start()
	waitPasses(t, h)
	setCgroup(t, dir, "cgroup.freeze", "1")
	waitFor(t, "the cgroup to freeze", func() bool {
		events, _ := os.ReadFile(dir + "/cgroup.events")
		return strings.Contains(string(events), "frozen 1")
	})
	reports := collect(t, h)
	checkOrder(t, reports, 2, 2)
	for i, r := range reports {
		if i >= 2 {
			if !r.Completed {
				t.Errorf("worker %d beside the cgroup: %+v", i, r.ExitInfo)
			}
			continue
		}
		if r.Completed || !r.Partial || r.Iterations == 0 || r.ExitInfo == nil || r.ExitInfo.Kind != report.ExitTimedOut {
			t.Errorf("frozen worker %d: completed %v, partial %v, %d passes, %+v", i, r.Completed, r.Partial, r.Iterations, r.ExitInfo)
		}
	}
	if took := h.Timing().Collect; took > commitTimeout+reapTimeout+time.Second {
		t.Errorf("collecting took %v", took)
	}
}

// TestCgroupOOM has workers fault in more than their cgroup may have: the kernel
// kills them, their reports say so, and workers elsewhere go on (S28, S29).
func TestCgroupOOM(t *testing.T) {
	dir := testCgroup(t, "memory")
	setCgroup(t, dir, "memory.max", "8M")
	if _, err := os.Stat(dir + "/memory.swap.max"); err == nil {
		setCgroup(t, dir, "memory.swap.max", "0")
	}
	h, err := Spawn(Workload{Groups: []spec.Group{group(2, "page_fault_churn", "region_kib", uint64(128<<10), "touches_per_cycle", uint64(32768)), group(1, "spin_wait")}, Cgroups: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.Start()
	waitFor(t, "the OOM killer", func() bool {
		events, _ := os.ReadFile(dir + "/memory.events")
		return strings.Contains(string(events), "oom_kill 2")
	})
	reports := collect(t, h)
	checkOrder(t, reports, 2, 1)
	for i, r := range reports[:2] {
		if r.Completed || !r.Partial || r.ExitInfo == nil || r.ExitInfo.Kind != report.ExitSignaled || r.ExitInfo.Signal != 9 {
			t.Errorf("worker %d: completed %v, partial %v, %+v", i, r.Completed, r.Partial, r.ExitInfo)
		}
	}
	if !reports[2].Completed {
		t.Errorf("the worker elsewhere: %+v", reports[2].ExitInfo)
	}
}

// TestForkFails makes the n-th fork fail, for each n of a small workload: the
// error names the worker and the remedy, and nothing is left (S11).
func TestForkFails(t *testing.T) {
	dir := testCgroup(t, "pids")
	groups := func() []spec.Group {
		return []spec.Group{group(2, "pipe_io"), group(1, "spin_wait"), box("gi-box", 2, "spin_wait"), group(2, "futex_fan_out", "fan_out", uint64(1))}
	}
	names := []string{"groups[0]: clone worker 0 of 2", "groups[0]: clone worker 1 of 2", "groups[1]: clone worker 0 of 1",
		"groups[2]: clone container gi-box", "groups[3]: clone worker 0 of 2", "groups[3]: clone worker 1 of 2"}
	for n, name := range names {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			setCgroup(t, dir, "pids.max", strconv.Itoa(n))
			before := takeStock()
			h, err := Spawn(Workload{Groups: groups(), Cgroups: []string{dir, dir, dir, dir}})
			if err == nil {
				h.Close()
				t.Fatalf("%d processes were enough", n)
			}
			if !errors.Is(err, unix.EAGAIN) || !strings.HasPrefix(err.Error(), name) || !strings.Contains(err.Error(), "pids.max") {
				t.Errorf("the error is %v, want %s", err, name)
			}
			wantNothingLeft(t)
			if leaks := settledLeaks(before); leaks != "" {
				t.Errorf("left behind: %s", leaks)
			}
			if left := members(t, dir); left != "" {
				t.Errorf("processes are left in the cgroup: %s", left)
			}
		})
	}
}

// TestContainerCannotStartAll lets a container have fewer tasks than it needs,
// for each number: its leader ends with 1, no member has begun, and every report
// says why (S20, S24, S29).
func TestContainerCannotStartAll(t *testing.T) {
	dir := testCgroup(t, "pids")
	for n := 1; n <= 3; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			setCgroup(t, dir, "pids.max", strconv.Itoa(n))
			h, err := Spawn(Workload{Groups: []spec.Group{box("gi-box", 3, "spin_wait"), group(1, "spin_wait")}, Cgroups: []string{dir}})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			reports := collect(t, h)
			checkOrder(t, reports, 3, 1)
			want := fmt.Sprintf("its container could start %d of 3 workers: resource temporarily unavailable", n-1)
			for i, r := range reports[:3] {
				if r.Completed || r.ExitInfo.Kind != report.ExitExited || r.ExitInfo.Code != 1 || r.ExitInfo.Text != want {
					t.Errorf("member %d: %+v, want %q", i, r.ExitInfo, want)
				}
				if r.Partial || r.Iterations != 0 { // ready is when all live
					t.Errorf("member %d began its work without the others: %d passes", i, r.Iterations)
				}
			}
			if !reports[3].Completed {
				t.Errorf("the worker beside it: %+v", reports[3].ExitInfo)
			}
		})
	}
}

// TestWorkInItsCgroup has the types that make cgroups make them below the cgroup
// that their group was born in, and leave nothing there.
func TestWorkInItsCgroup(t *testing.T) {
	dir := testCgroup(t)
	target, churn := group(1, "cgroup_attach_storm", "reap", "waitpid"), group(1, "cgroup_churn", "cycle", "1ms")
	h, err := Spawn(Workload{Groups: []spec.Group{churn, target}, Cgroups: []string{dir, dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.Start()
	waitPasses(t, h)
	below, err := filepath.Glob(dir + "/guestinit-work-*")
	if err != nil || len(below) != 3 {
		t.Errorf("below the group's cgroup are %q, %v", below, err)
	}
	found := ""
	for range 100 {
		for _, leaf := range below {
			if strings.Contains(members(t, leaf), strconv.Itoa(h.WorkerPIDs()[0])) {
				found = leaf
			}
		}
	}
	if found == "" {
		t.Errorf("the worker of cgroup_churn is in none of %q", below)
	}
	for _, r := range collect(t, h) {
		if !r.Completed || r.WorkUnits == 0 || len(r.SoftErrors) > 0 {
			t.Errorf("%s: %+v, soft errors %v", r.WorkType, r.ExitInfo, r.SoftErrors)
		}
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(dir + "/guestinit-work-*"); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}
