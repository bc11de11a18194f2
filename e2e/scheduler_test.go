package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
)

// buildScheduler builds the small sched_ext scheduler of this repository.
func buildScheduler(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scx_fifo")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../internal/scxfifo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build scheduler: %v\n%s", err, out)
	}
	return path
}

// schedulerPath is where the scheduler lies in a guest.
const schedulerPath = "/usr/local/bin/scx_fifo"

// underScheduler is a workload of two groups under a scheduler.
func underScheduler(path string, duration string, args ...string) string {
	return fmt.Sprintf(`version: 1
duration: %s
scheduler: {path: %q, args: [%s]}
groups:
  - {name: spinners, workers: 3, work: spin_wait}
  - {name: pairs, workers: 2, work: pipe_io}
`, duration, path, strings.Join(args, ", "))
}

// TestSchedulerWorks runs the example: its scheduler works to the end.
func TestSchedulerWorks(t *testing.T) {
	dir := kernelDir(t, "7.2")
	r := guestinit(t, "", "run", "--kernel", dir, "--accel", "tcg", "--json", "-",
		"--file", buildScheduler(t)+":"+schedulerPath, "../examples/sched-ext.yaml")
	r.want(t, 0)
	rep := r.report(t)
	s := rep.Run.Scheduler
	if s == nil {
		t.Fatal("the report has no scheduler")
	}
	if s.Name != "fifo" || s.State != "enabled" || s.Failure != "" || s.Exit != "exit status 0" || !s.SwitchAll {
		t.Errorf("scheduler %+v", s)
	}
	if _, ok := s.Events["SCX_EV_SELECT_CPU_FALLBACK"]; !ok || s.RanMs < 3000 || s.EnableMs <= 0 {
		t.Errorf("figures of the scheduler: events %v, enabled in %v, ran %v ms", s.Events, s.EnableMs, s.RanMs)
	}
	log := strings.Join(s.KernelLog, "\n")
	if !strings.Contains(log, `BPF scheduler "fifo" enabled`) || !strings.Contains(log, "unregistered from user space") {
		t.Errorf("kernel log:\n%s", log)
	}
	for _, g := range rep.Groups {
		if g.Completed != g.Workers || g.RunCount == 0 {
			t.Errorf("group %s: %d of %d completed, run count %d", g.Name, g.Completed, g.Workers, g.RunCount)
		}
	}
	if rep.Run.Spawner != "fifo:99" {
		t.Errorf("spawner %s", rep.Run.Spawner)
	}
}

// TestSchedulerFails has schedulers that fail in a guest: the run ends early, with
// the report of every worker, and the failure has its class and its reason.
func TestSchedulerFails(t *testing.T) {
	dir := kernelDir(t, "7.2")
	path := buildScheduler(t)
	for _, c := range []struct {
		name    string
		args    []string
		failure string
		reason  []string
		output  string
		workers int
		timely  bool // the run is stopped on time although nothing of the guest's runs then
	}{
		{"exit", []string{"-after", "500ms", "-do", "exit", "-code", "3"}, "exited", []string{"exit status 3"}, "EXIT: unregistered from user space", 5, false},
		{"error", []string{"-after", "500ms", "-do", "error"}, "ejected", []string{"scx_bpf_error", "scx_fifo was told to fail"}, "DEBUG DUMP", 5, false},
		{"stall", []string{"-after", "500ms", "-do", "stall", "-timeout", "1s"}, "stalled", []string{"runnable task stall", "failed to"}, "DEBUG DUMP", 5, false},
		{"stall past the end", []string{"-after", "500ms", "-do", "stall", "-timeout", "4s"}, "stalled", []string{"runnable task stall"}, "DEBUG DUMP", 5, true},
		{"refused", []string{"-flags", "1099511627776"}, "refused", []string{"invalid argument", "exit status 1"}, "scx_fifo: load", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := make([]string, len(c.args))
			for i, a := range c.args {
				args[i] = fmt.Sprintf("%q", a)
			}
			duration, early := "20s", 19e3
			if c.timely {
				duration, early = "2s", 3e3
			}
			r := guestinit(t, underScheduler(schedulerPath, duration, args...), "run", "--kernel", dir, "--accel", "tcg", "--json", "-",
				"--file", path+":"+schedulerPath, "-")
			r.want(t, 1)
			rep := r.report(t)
			s := rep.Run.Scheduler
			if s == nil || s.Failure != c.failure {
				t.Fatalf("scheduler %+v", s)
			}
			for _, text := range c.reason {
				if !strings.Contains(s.Reason, text) || len(rep.Failures) == 0 || !strings.Contains(rep.Failures[0], text) {
					t.Errorf("reason %q, failures %q: no %q", s.Reason, rep.Failures, text)
				}
			}
			if !strings.Contains(s.Output, c.output) {
				t.Errorf("output without %q:\n%s", c.output, s.Output)
			}
			if len(rep.Workers) != c.workers || rep.Verdict != report.Fail || rep.Run.DurationMs > early {
				t.Errorf("%d workers, want %d; verdict %s after %v ms", len(rep.Workers), c.workers, rep.Verdict, rep.Run.DurationMs)
			}
			for _, w := range rep.Workers {
				if !w.Completed {
					t.Errorf("worker %d/%d did not complete: %+v", w.GroupIndex, w.Index, w.ExitInfo)
				}
			}
		})
	}
}

// TestSchedulerUnsupported has a kernel without sched_ext: no worker is started.
func TestSchedulerUnsupported(t *testing.T) {
	r := guestinit(t, underScheduler(schedulerPath, "20s"), "run", "--kernel", kernelDir(t, "6.1"), "--accel", "tcg",
		"--file", buildScheduler(t)+":"+schedulerPath, "-")
	r.want(t, 5, "has no sched_ext", "CONFIG_SCHED_CLASS_EXT", "guestinit kernel fetch 7.2")
	guestinit(t, underScheduler("/nonexistent/scx", "1s"), "run", "-").want(t, 2, "scheduler.path", "/nonexistent/scx")
}

// TestLongStall has a scheduler stall for as long as the kernel lets it by default,
// 30 s: longer than the workload, whose workers are stopped on time all the same,
// and for so long the guest says nothing. The run ends with the kernel's reason,
// with every report and with what the spec judges it by.
func TestLongStall(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes a minute; try: make check-all")
	}
	text := underScheduler(schedulerPath, "2s", "-after", "500ms", "-do", "stall") + "checks: {zero_progress: true}\n"
	begin := time.Now()
	r := guestinit(t, text, "run", "--kernel", kernelDir(t, "7.2"), "--accel", "tcg", "--json", "-", "--file", buildScheduler(t)+":"+schedulerPath, "-")
	took := time.Since(begin)
	r.want(t, 1)
	rep := r.report(t)
	s := rep.Run.Scheduler
	if s == nil || s.Failure != "stalled" || !strings.Contains(s.Reason, "runnable task stall") || !strings.Contains(s.Output, "DEBUG DUMP") {
		t.Fatalf("scheduler %+v", s)
	}
	if s.RanMs < 29e3 {
		t.Errorf("the scheduler stalled after 500 ms and was ejected after %v ms; was it the default timeout?", s.RanMs)
	}
	if !strings.Contains(strings.Join(rep.Failures, "\n"), "runnable task stall") || rep.Verdict != report.Fail || len(rep.Checks) != 2 {
		t.Errorf("verdict %s, failures %q, %d checks", rep.Verdict, rep.Failures, len(rep.Checks))
	}
	if len(rep.Workers) != 5 || rep.Run.DurationMs > 3e3 {
		t.Errorf("%d workers, run of %v ms", len(rep.Workers), rep.Run.DurationMs)
	}
	for _, w := range rep.Workers {
		if !w.Completed || w.WallNs == 0 {
			t.Errorf("worker %d/%d did not complete: %+v", w.GroupIndex, w.Index, w.ExitInfo)
		}
	}
	t.Logf("%v in all, %v ms under the scheduler, notes %q", took.Round(time.Second), s.RanMs, rep.Notes)
}
