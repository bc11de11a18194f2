package spawn

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
)

// TestFaults has one worker of four fail, each time in another way: four
// reports, the right exit info, and what the worker had done (S27, S28, S29).
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		kind string
		want report.ExitInfo
		text string // part of the text
	}{
		{"exit", report.ExitInfo{Kind: report.ExitExited, Code: 3}, ""},
		{"sigkill", report.ExitInfo{Kind: report.ExitSignaled, Signal: 9}, "SIGKILL"},
		{"sigsegv", report.ExitInfo{Kind: report.ExitSignaled, Signal: 11}, "SIGSEGV at address 0x8"},
		{"panic", report.ExitInfo{Kind: report.ExitPanicked, Signal: 11}, "out of range"},
		{"stack_overflow", report.ExitInfo{Kind: report.ExitPanicked, Signal: 11}, "stack overflow"},
		{"hang", report.ExitInfo{Kind: report.ExitTimedOut, Signal: 9}, "within 5s"},
		{"sigstop", report.ExitInfo{Kind: report.ExitTimedOut, Signal: 9}, "within 5s"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			h := start(t, group(2, "pipe_io"), group(1, faultType, "kind", c.kind), group(1, "yield_heavy"))
			waitRunning(t, h)
			time.Sleep(600 * time.Millisecond)
			reports := collect(t, h)
			if len(reports) != 4 {
				t.Fatalf("%d reports for 4 workers", len(reports))
			}
			for _, i := range []int{0, 1, 3} {
				if !reports[i].Completed {
					t.Errorf("worker %d did not complete: %v", i, reports[i].ExitInfo)
				}
			}
			r := reports[2]
			if r.Completed || !r.Partial || r.GroupIndex != 1 || r.Iterations == 0 || r.WorkUnits == 0 || r.CPUNs == 0 {
				t.Errorf("the report of the failed worker is %+v", r)
			}
			checkExit(t, r.ExitInfo, c.want, c.text)
		})
	}
}

func checkExit(t *testing.T, e *report.ExitInfo, want report.ExitInfo, text string) {
	t.Helper()
	if e == nil {
		t.Fatal("no exit info")
	}
	if e.Kind != want.Kind || e.Code != want.Code || e.Signal != want.Signal || !strings.Contains(e.Text, text) {
		t.Errorf("exit info is %+v, want %+v and %q", e, want, text)
	}
	fault := want.Signal == int(unix.SIGSEGV)
	if stack := strings.Join(e.Stack, "\n"); fault != strings.Contains(stack, "(fault_unsafe.go:") {
		t.Errorf("the stack is\n%s", stack)
	}
}

// TestSignalsFromOutside kills workers as an operator or the OOM killer would,
// before and behind the gate.
func TestSignalsFromOutside(t *testing.T) {
	for _, c := range []struct {
		name   string
		signal unix.Signal
		before bool
	}{{"SIGKILL", unix.SIGKILL, false}, {"SIGSEGV", unix.SIGSEGV, false}, {"SIGTERM", unix.SIGTERM, false}, {"SIGKILL", unix.SIGKILL, true}} {
		name := c.name + " behind the gate"
		if c.before {
			name = c.name + " before the gate"
		}
		t.Run(name, func(t *testing.T) {
			h, err := Spawn(Workload{Groups: groups2()})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if !c.before {
				h.Start()
				waitRunning(t, h)
			}
			if err := unix.Kill(h.WorkerPIDs()[1], c.signal); err != nil {
				t.Fatal(err)
			}
			reports := collect(t, h)
			if len(reports) != 2 || !reports[0].Completed || reports[1].Completed {
				t.Fatalf("reports %+v", reports)
			}
			if reports[1].Partial == c.before {
				t.Errorf("partial is %v", reports[1].Partial)
			}
			e := reports[1].ExitInfo
			if e.Kind != report.ExitSignaled || e.Signal != int(c.signal) || !strings.HasPrefix(e.Text, c.name) {
				t.Errorf("exit info is %+v", e)
			}
		})
	}
}

// TestKillOnlySignals checks that Kill reaps nothing and loses no report (S30).
func TestKillOnlySignals(t *testing.T) {
	h := start(t, groups2()...)
	waitRunning(t, h)
	h.Kill()
	for _, pid := range h.WorkerPIDs() {
		if !Owns(pid) {
			t.Errorf("pid %d was given up by Kill", pid)
		}
	}
	for _, r := range collect(t, h) {
		if r.Completed || r.ExitInfo.Signal != int(unix.SIGKILL) {
			t.Errorf("report %+v", r)
		}
	}
}

// TestEarlyStopIsNotLost sends the stop signal while workers wait at the gate
// (S17): they end at once when it opens, with nobody to tell them again, and with
// real reports.
func TestEarlyStopIsNotLost(t *testing.T) {
	h, err := Spawn(Workload{Groups: groups2()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, pid := range h.WorkerPIDs() {
		if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	h.Start()
	waitFor(t, "the workers' end", func() bool { return !h.Look() })
	for _, r := range collect(t, h) {
		if !r.Completed || r.Iterations != 0 {
			t.Errorf("completed %v after %d iterations: %v", r.Completed, r.Iterations, r.ExitInfo)
		}
	}
}
