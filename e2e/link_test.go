package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
)

// TestLinks runs a workload over each link on each kernel, and follows it.
func TestLinks(t *testing.T) {
	const text = "version: 1\nduration: 2500ms\nbackdrop:\n  groups:\n  - {name: spin, workers: 2, work: spin_wait}\n  - {name: timer, workers: 1, work: {type: timer_latency, interval: 5ms}}\n" +
		"steps:\n  - {name: warm, hold: 1s}\n  - name: main\n    ops:\n      - add_cgroup: {name: late}\n"
	for _, line := range lines {
		for option, want := range map[string][]string{
			"vsock":  {"vhost-user-vsock", "vhost-vsock"},
			"serial": {"serial"},
		} {
			t.Run(line+" "+option, func(t *testing.T) {
				t.Parallel()
				events := filepath.Join(t.TempDir(), "events")
				r := guestinit(t, text, "run", "--kernel", kernelDir(t, line), "--accel", "tcg", "--link", option, "--events", events, "--json", "-", "-")
				r.want(t, 0)
				rep := r.report(t)
				if rep.Verdict != report.Pass || !slices.Contains(want, rep.Run.Link) || len(rep.Workers) != 3 {
					t.Errorf("verdict %s, link %s, %d workers, %q", rep.Verdict, rep.Run.Link, len(rep.Workers), rep.Notes)
				}
				checkEvents(t, events)
			})
		}
	}
}

// checkEvents holds an event log to what a run of two groups and two steps must have.
func checkEvents(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[launch.Stage]int{}
	last := launch.Event{}
	var steps []string
	for line := range strings.Lines(string(data)) {
		var e launch.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if seen[e.Stage]++; e.At < last.At {
			t.Errorf("%q comes after %v", line, last.At)
		}
		if e.Stage == launch.StageProgress && (len(e.Groups) != 2 || e.Groups[0].Name != "spin" || e.Groups[0].Alive != 2 || e.Groups[0].Iterations == 0 || e.GuestAtNs == 0) {
			t.Errorf("progress %q", line)
		}
		if e.Stage == launch.StagePhase || e.Stage == launch.StageStep {
			steps = append(steps, fmt.Sprint(e.Stage, " ", e.Step, " ", e.Phase, " ", e.Text))
		}
		last = e
	}
	if got := strings.Join(steps, "; "); got != "phase 1 warm begins; phase 1 warm ends; step 2  op add_cgroup; phase 2 main begins; phase 2 main ends" {
		t.Errorf("phases and steps: %s", got)
	}
	if last.Stage != launch.StageReport || seen[launch.StageProgress] < 2 || seen[launch.StageHello] != 1 || seen[launch.StageBoot] != 1 {
		t.Errorf("%v\n%s", seen, data)
	}
}

// TestEventsOnStandardOutput has the lines where a pipe reads them, and the
// table elsewhere.
func TestEventsOnStandardOutput(t *testing.T) {
	r := guestinit(t, shortSpec, "local", "--events", "-", "-")
	r.want(t, 0, "PASS")
	for line := range strings.Lines(r.stdout) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
	guestinit(t, shortSpec, "local", "--events", "-", "--json", "-", "-").want(t, 2, "both want standard output")
	guestinit(t, shortSpec, "local", "--events", "/nonexistent/events", "-").want(t, 5, "/nonexistent/events")
}
