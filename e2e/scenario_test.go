package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/report"
)

// TestScenarioInGuest runs the tests of package scenario as PID 1 of a guest,
// where cgroups have all controllers, and with them every spec of examples/.
func TestScenarioInGuest(t *testing.T) {
	t.Parallel()
	scenarioInGuest(t, "7.2")
}

// TestLongScenarioInGuest does it on the other kernels.
func TestLongScenarioInGuest(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes a minute a kernel; try: make check-all")
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) { scenarioInGuest(t, line) })
	}
}

func scenarioInGuest(t *testing.T, line string) {
	examples, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	var files []initramfs.File
	for _, name := range examples {
		files = append(files, initramfs.File{Src: name, Dst: "/examples/" + filepath.Base(name)})
	}
	testsInGuest(t, guestTests{line: line, pkg: "scenario", files: files})
}

// steps is a scenario with nested cgroups, a backdrop that is moved between CPUs,
// and a step with load of its own.
const steps = `
version: 1
name: steps
duration: 3s
checks: {zero_progress: true, isolation: true}
backdrop:
  cgroups:
    - name: base
      cpuset: 0-1
      cgroups:
        - name: inner
          cpuset: "0"
          checks: {min_iteration_rate: 1, max_steal_pct: 100, unsound_timing: enforce}
          groups: [{name: steady, workers: 1, work: spin_wait}]
        - {name: spare, cpuset: "1"}
steps:
  - name: alone
  - name: moved
    cgroups:
      - {name: load, cpu.max: 50%, groups: [{name: burst, workers: 2, work: bursty}]}
    ops:
      - swap_cpusets: [base/inner, base/spare]
  - name: after
`

// TestRunSteps runs a scenario in a guest and looks at what comes to the host: the
// verdict with its figures, the slices of each step, where they ran, the events.
func TestRunSteps(t *testing.T) {
	events := filepath.Join(t.TempDir(), "events")
	r := guestinit(t, steps, "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--events", events, "--json", "-", "-")
	r.want(t, 0)
	rep := r.report(t)
	if rep.Verdict != report.Pass || len(rep.Failures) > 0 || len(rep.Workers) != 3 || len(rep.Groups) != 2 {
		t.Fatalf("%s, %q, %d workers, %d groups", rep.Verdict, rep.Failures, len(rep.Workers), len(rep.Groups))
	}
	steady, burst := rep.Groups[0], rep.Groups[1]
	if steady.Cgroup != "base/inner" || steady.Step != 0 || burst.Cgroup != "load" || burst.Step != 2 || steady.CPUsUsed != "0-1" {
		t.Errorf("the groups are %+v", rep.Groups)
	}
	checkSteps(t, rep)
	checkOutcomes(t, rep)
	for _, note := range rep.Notes {
		if strings.Contains(note, "cgroup") {
			t.Errorf("a note on cgroups: %s", note)
		}
	}
	lines, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"alone"`, `"moved"`, `"after"`, `swap_cpusets`} {
		if !strings.Contains(string(lines), want) {
			t.Errorf("no event says %s:\n%s", want, lines)
		}
	}
}

// checkSteps: the slices of the backdrop partition its work, and each step's ran
// where its cpuset was.
func checkSteps(t *testing.T, rep *report.Report) {
	t.Helper()
	w := &rep.Workers[0]
	units, cpus := uint64(0), map[uint32]string{}
	for _, p := range w.Phases {
		units += p.WorkUnits
		cpus[p.Epoch] = p.CPUsUsed
		if p.Epoch >= 1 && p.Epoch <= 3 && p.WorkUnits == 0 {
			t.Errorf("the backdrop did nothing in step %d", p.Epoch)
		}
	}
	if units != w.WorkUnits || cpus[1] != "0" || cpus[3] != "1" {
		t.Errorf("slices of %d units, the worker has %d; it ran on %v", units, w.WorkUnits, cpus)
	}
	for _, p := range rep.Phases {
		var names []string
		for _, g := range p.Groups {
			names = append(names, g.Name)
		}
		if want := map[uint32][]string{1: {"steady"}, 2: {"steady", "burst"}, 3: {"steady"}}[p.Epoch]; !slices.Equal(names, want) {
			t.Errorf("in step %d were %q, want %q", p.Epoch, names, want)
		}
	}
	var names []string
	for _, p := range rep.Run.Phases {
		if p.Epoch >= 1 && p.Epoch <= 3 {
			names = append(names, p.Name+" "+p.Cpusets["base/inner"])
		}
	}
	if want := []string{"alone 0", "moved 1", "after 1"}; !slices.Equal(names, want) {
		t.Errorf("the steps are %q, want %q", names, want)
	}
}

// checkOutcomes: what a spec, a cgroup and a step are judged by, with the figures.
func checkOutcomes(t *testing.T, rep *report.Report) {
	t.Helper()
	seen := map[string]report.Check{}
	for _, c := range rep.Checks {
		seen[c.Scope+": "+c.Name] = c
		if c.Outcome != report.Pass && c.Outcome != report.Skip {
			t.Errorf("%+v", c)
		}
	}
	for _, want := range []string{"cgroup base/inner: zero_progress", "cgroup base/inner: isolation", "cgroup load of step 2: zero_progress", "cgroup base/inner, moved: isolation"} {
		if _, ok := seen[want]; !ok {
			t.Errorf("no check %s among %v", want, rep.Checks)
		}
	}
	if c := seen["cgroup base/inner: min_iteration_rate"]; c.Limit != 1 || c.Value <= 1 || c.Unit != "per_s" {
		t.Errorf("the rate is judged as %+v", c)
	}
}

// TestRunMisses runs thresholds that cannot be met: one of timing decides nothing
// under emulation unless the spec says that it does.
func TestRunMisses(t *testing.T) {
	const text = "version: 1\nduration: 300ms\ngroups:\n  - {name: load, workers: 1, work: spin_wait, checks: {max_p99_wake_latency: 1ns, min_iteration_rate: 1000000000000%s}}\n"
	for _, tt := range []struct {
		more    string
		status  int
		verdict report.Verdict
	}{{"", 6, report.Inconclusive}, {", unsound_timing: enforce", 1, report.Fail}} {
		r := guestinit(t, fmt.Sprintf(text, tt.more), "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--json", "-", "-")
		r.want(t, tt.status)
		rep := r.report(t)
		if rep.Verdict != tt.verdict {
			t.Errorf("the verdict is %s, want %s", rep.Verdict, tt.verdict)
		}
		if !slices.ContainsFunc(rep.Checks, func(c report.Check) bool {
			return c.Name == "min_iteration_rate" && c.Outcome == tt.verdict && c.Value > 0 && c.Limit == 1e12 && c.Reason != ""
		}) {
			t.Errorf("the checks are %+v", rep.Checks)
		}
	}
}
