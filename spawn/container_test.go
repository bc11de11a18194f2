package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// box is a group of n workers in a container.
func box(name string, n int, work string, params ...any) spec.Group {
	g := group(n, work, params...)
	g.Pcomm = name
	return g
}

// TestContainerIsOneProcess looks at a container from outside: its name, its
// threads, its place in the handle (S24, S25).
func TestContainerIsOneProcess(t *testing.T) {
	named := box("gi-named", 2, "futex_ping_pong")
	named.Comm = "gi-member"
	h := start(t, group(1, "spin_wait"), box("gi-box", 3, "spin_wait"), named, group(1, "yield_heavy"))
	waitRunning(t, h)
	pids := h.WorkerPIDs()
	if len(pids) != 4 {
		t.Fatalf("pids %v for two workers and two containers", pids)
	}
	for i, want := range []struct {
		comm, member string
		tasks        int
	}{{"", "", 1}, {"gi-box", "gi-box", 4}, {"gi-named", "gi-member", 3}, {"", "", 1}} {
		comms := taskComms(t, pids[i])
		if len(comms) != want.tasks {
			t.Errorf("process %d has tasks %v, want %d", i, comms, want.tasks)
		}
		if want.comm == "" {
			continue
		}
		for tid, comm := range comms {
			if name := want.member; tid == pids[i] && comm != want.comm || tid != pids[i] && comm != name {
				t.Errorf("task %d of container %s is called %q", tid, want.comm, comm)
			}
		}
		if pgid, err := unix.Getpgid(pids[i]); err != nil || pgid != pids[i] {
			t.Errorf("process group of the container is %d, %v", pgid, err)
		}
	}
	checkOrder(t, collect(t, h), 1, 3, 2, 1)
}

// taskComms is the names of a process's tasks.
func taskComms(t *testing.T, pid int) map[int]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	comms := make(map[int]string)
	for _, f := range files {
		var tid int
		fmt.Sscan(filepath.Base(filepath.Dir(f)), &tid)
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		comms[tid] = strings.TrimSpace(string(b))
	}
	return comms
}

// checkOrder checks that there is one report for each worker of groups of these
// sizes, in order.
func checkOrder(t *testing.T, reports []report.Worker, sizes ...int) {
	t.Helper()
	i := 0
	for g, n := range sizes {
		for index := range n {
			if i >= len(reports) {
				t.Fatalf("%d reports for groups of %v", len(reports), sizes)
			}
			if r := &reports[i]; r.GroupIndex != g || r.Index != index {
				t.Errorf("report %d is of group %d, worker %d; want %d, %d", i, r.GroupIndex, r.Index, g, index)
			}
			i++
		}
	}
	if i != len(reports) {
		t.Errorf("%d reports for groups of %v", len(reports), sizes)
	}
}

// TestContainerFaults has a member of a container fail in each way: as many
// reports as workers, in order, and each says what became of it (S24, S28, S29).
// A fault ends the container, a member that leaves by itself ends alone.
func TestContainerFaults(t *testing.T) {
	for _, c := range []struct {
		kind   string
		want   report.ExitInfo
		text   string
		others string // how the text of those ends that another's fault ended; empty: it ends none
	}{
		{"exit", report.ExitInfo{Kind: report.ExitExited, Code: 3}, "", ""},
		{"sigkill", report.ExitInfo{Kind: report.ExitSignaled, Signal: 9}, "SIGKILL", "which ended its container"},
		{"sigsegv", report.ExitInfo{Kind: report.ExitSignaled, Signal: 11}, "SIGSEGV at address 0x8", "which ended its container"},
		{"panic", report.ExitInfo{Kind: report.ExitPanicked, Signal: 11}, "out of range", "which ended its container"},
		{"stack_overflow", report.ExitInfo{Kind: report.ExitPanicked, Signal: 11}, "stack overflow", "which ended its container"},
		{"hang", report.ExitInfo{Kind: report.ExitTimedOut, Signal: 9}, "within 5s", ""},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			h := start(t, group(1, "spin_wait"), box("gi-box", 1, faultType, "kind", c.kind), box("gi-other", 2, "pipe_io"))
			var mixed *Handle
			if c.kind != "hang" {
				mixed = start(t, box("gi-mixed", 3, faultType, "kind", c.kind, "after", "100ms"))
				waitFor(t, "a container to run or to be gone", func() bool {
					return !mixed.Look() || int(mixed.arena.shared.ReadyCount) == 3
				})
			}
			waitRunning(t, h)
			time.Sleep(600 * time.Millisecond)
			reports := collect(t, h)
			checkOrder(t, reports, 1, 1, 2)
			for _, i := range []int{0, 2, 3} {
				if !reports[i].Completed {
					t.Errorf("worker %d did not complete: %+v", i, reports[i].ExitInfo)
				}
			}
			checkExit(t, reports[1].ExitInfo, c.want, c.text)
			if r := reports[1]; r.Completed || !r.Partial || r.Iterations == 0 {
				t.Errorf("the report of the failed worker is %+v", r)
			}
			if mixed != nil {
				checkMixed(t, collect(t, mixed), c.kind, c.others)
			}
		})
	}
}

// checkMixed checks a container of which all members fail the same way at about
// the same time: each either tells of its own fault, or was ended by another's.
func checkMixed(t *testing.T, reports []report.Worker, kind, others string) {
	t.Helper()
	checkOrder(t, reports, 3)
	own := 0
	for i, r := range reports {
		switch {
		case r.Completed || r.ExitInfo == nil:
			t.Errorf("%s: member %d completed", kind, i)
		case others == "" || !strings.HasSuffix(r.ExitInfo.Text, others) || kind == "sigkill":
			own++
		}
	}
	if own == 0 {
		t.Errorf("%s: no member tells of a fault of its own", kind)
	}
}

// TestContainerLeaderKilled kills a container's leader, before and behind the
// gate (S24, S27, S29).
func TestContainerLeaderKilled(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before the gate=%v", before), func(t *testing.T) {
			h, err := Spawn(Workload{Groups: []spec.Group{box("gi-box", 3, "spin_wait"), group(2, "pipe_io")}})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if !before {
				h.Start()
				waitPasses(t, h)
			}
			if err := unix.Kill(h.WorkerPIDs()[0], unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			reports := collect(t, h)
			checkOrder(t, reports, 3, 2)
			for i, r := range reports {
				if i >= 3 {
					if !r.Completed {
						t.Errorf("worker %d beside the container: %+v", i, r.ExitInfo)
					}
					continue
				}
				if r.Completed || r.ExitInfo == nil || r.ExitInfo.Signal != 9 || r.Partial == before {
					t.Errorf("member %d: completed %v, partial %v, %+v", i, r.Completed, r.Partial, r.ExitInfo)
				}
			}
		})
	}
}

// TestContainerDropsRights has a container and a forked worker run as somebody
// else: every task has the ids, group before user (S22, S24).
func TestContainerDropsRights(t *testing.T) {
	if os.Getuid() != 0 {
		unable(t, "changing user and group needs root")
	}
	uid, gid := uint32(54321), uint32(54322)
	groups := []spec.Group{box("gi-box", 2, "spin_wait"), group(1, "spin_wait")}
	for i := range groups {
		groups[i].UID, groups[i].GID = &uid, &gid
	}
	h := start(t, groups...)
	waitRunning(t, h)
	for _, pid := range h.WorkerPIDs() {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if len(files) == 0 {
			t.Errorf("process %d has no tasks", pid)
		}
		for _, f := range files {
			status, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{`(?m)^Uid:\s+54321\s+54321\s+54321\s+54321$`, `(?m)^Gid:\s+54322\s+54322\s+54322\s+54322$`} {
				if !regexp.MustCompile(want).Match(status) {
					t.Errorf("%s does not match %s:\n%s", f, want, status)
				}
			}
		}
	}
	for _, r := range collect(t, h) {
		if !r.Completed || len(r.SoftErrors) > 0 {
			t.Errorf("completed %v, soft errors %v", r.Completed, r.SoftErrors)
		}
	}
}

// TestContainerStopsOnce: a container's stop flag comes by one signal and reaches
// all members (S17, S27).
func TestContainerStopsOnce(t *testing.T) {
	h, err := Spawn(Workload{Groups: []spec.Group{box("gi-box", 4, "spin_wait")}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	// Early, while the leader waits at the gate: not fatal.
	if err := unix.Kill(h.WorkerPIDs()[0], unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	reports := collect(t, h)
	checkOrder(t, reports, 4)
	for _, r := range reports {
		if !r.Completed {
			t.Errorf("completed %v: %+v", r.Completed, r.ExitInfo)
		}
	}
}
