package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/report"
)

// everyOp is a scenario with each kind of operation; SLEEP is a program.
const everyOp = `
version: 1
name: every op
duration: 4500ms
backdrop:
  cgroups:
    - {name: a, cpuset: "0", defaults: {nice: 3}, groups: [{name: steady, workers: 1, work: yield_heavy}]}
    - {name: b, cpuset: "1"}
    - name: c
      defaults: {nice: 4}
      cgroups:
        - {name: gone, groups: [{name: early, workers: 1, work: yield_heavy}]}
        - {name: stops, groups: [{name: mid, workers: 1, work: yield_heavy}]}
  groups: [{name: free, workers: 1, work: yield_heavy}]
  programs: [{name: beside, path: SLEEP, args: ["600"], cgroup: b}]
steps:
  - name: as-made
  - name: changed
    ops:
      - set_cpuset: {cgroup: a, cpuset: 1}
      - set_cpuset: {cgroup: b, cpuset: 0}
      - remove_cgroup: c/gone
      - stop_cgroup: c/stops
      - set_affinity: {group: free, affinity: 0}
  - name: grown
    ops:
      - swap_cpusets: [a, b]
      - add_cgroup: {name: c/new, cpu.weight: 50, groups: [{name: added, workers: 1, work: yield_heavy}]}
      - spawn: {cgroup: c/new, groups: [{name: spawned, workers: 1, work: yield_heavy}]}
  - name: programs
    ops:
      - run_program: {name: list, path: /bbin/guestinit, args: [types]}
      - wait_program: list
      - run_program: {name: nap, path: SLEEP, args: ["600"], cgroup: a}
      - kill_program: nap
  - name: cold
    ops: [{freeze: a}]
  - name: moved
    checks: {zero_progress: true}
    checks_of:
      - {cgroup: a, checks: {isolation: true}}
      - {group: free, checks: {max_p99_wake_latency: 1ns, min_iteration_rate: 1}}
    ops:
      - thaw: a
      - move_tasks: {from: a, to: b}
      - clear_cpuset: b
`

// TestRunEveryOp runs each kind of operation in a guest and looks at what the
// report says that it did.
func TestRunEveryOp(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	events := filepath.Join(t.TempDir(), "events")
	r := guestinit(t, strings.ReplaceAll(everyOp, "SLEEP", sleep), "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--events", events, "--json", "-", "-")
	r.want(t, 0)
	rep := r.report(t)
	if rep.Verdict != report.Pass || len(rep.Workers) != 6 || len(rep.Run.Phases) != 6 {
		t.Fatalf("%s, %q, %d workers, %d phases", rep.Verdict, rep.Failures, len(rep.Workers), len(rep.Run.Phases))
	}
	workers := map[string]*report.Worker{}
	for i := range rep.Workers {
		workers[rep.Groups[rep.Workers[i].GroupIndex].Name] = &rep.Workers[i]
	}
	// Where each ran in each step; a dash is for one that was not there.
	for name, want := range map[string]string{"steady": "0 1 0 0  *", "early": "* - - - - -", "mid": "* - - - - -", "free": "* 0 0 0 0 0"} {
		if got := ranOn(workers[name]); !matches(got, want) {
			t.Errorf("%s ran on %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{"steady": "3", "early": "4", "added": "4", "spawned": "4", "free": "0"} {
		if got := workers[name].Settings["nice"].Got; got != want {
			t.Errorf("%s has nice %q, want %s", name, got, want)
		}
	}
	// It was frozen for a whole step, and is the only one.
	if gap := workers["steady"].MaxGapNs; gap < 500e6 {
		t.Errorf("steady was frozen for %d ns", gap)
	}
	everyProgram(t, rep)
	outcomes := map[string]report.Verdict{}
	for _, c := range rep.Checks {
		outcomes[c.Scope+": "+c.Name] = c.Outcome
	}
	// Of the step that judges, and of no other; what was moved may run where it is now.
	if want := map[string]report.Verdict{
		"cgroup a, moved: zero_progress": report.Pass, "cgroup a, moved: isolation": report.Pass, "group free, moved: zero_progress": report.Pass,
		"group free, moved: max_p99_wake_latency": report.Skip, "group free, moved: min_iteration_rate": report.Pass,
	}; !maps.Equal(outcomes, want) {
		t.Errorf("checks %v", outcomes)
	}
	var cpusets []string
	for _, p := range rep.Run.Phases {
		cpusets = append(cpusets, fmt.Sprintf("%s %s %s", p.Name, p.Cpusets["a"], p.Cpusets["b"]))
	}
	if want := []string{"as-made 0 1", "changed 1 0", "grown 0 1", "programs 0 1", "cold 0 1", "moved 0 0-1"}; !slices.Equal(cpusets, want) {
		t.Errorf("cpusets %q", cpusets)
	}
	lines, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"set_cpuset", "remove_cgroup", "stop_cgroup", "set_affinity", "swap_cpusets", "add_cgroup", "spawn", "run_program", "wait_program", "kill_program", "freeze", "thaw", "move_tasks", "clear_cpuset"} {
		if !strings.Contains(string(lines), "op "+op+`"`) {
			t.Errorf("no event of %s", op)
		}
	}
}

// ranOn is the CPUs of a worker of the backdrop in each of the six steps.
func ranOn(w *report.Worker) []string {
	ran := make([]string, 6)
	for i := range ran {
		ran[i] = "-"
	}
	for _, p := range w.Phases {
		if p.Epoch >= 1 && p.Epoch <= 6 {
			ran[p.Epoch-1] = p.CPUsUsed
		}
	}
	return ran
}

// matches compares CPUs with what they should be: * is any.
func matches(got []string, want string) bool {
	words := strings.Split(want, " ")
	for i := range got {
		if words[i] != "*" && got[i] != words[i] || words[i] == "*" && got[i] == "-" {
			return false
		}
	}
	return len(got) == len(words)
}

func everyProgram(t *testing.T, rep *report.Report) {
	t.Helper()
	var programs []string
	for _, p := range rep.Run.Programs {
		programs = append(programs, fmt.Sprintf("%s of %q in step %d: %s, stopped %v", p.Name, p.Cgroup, p.Step, p.Exit, p.Stopped))
		if p.Name == "list" && !strings.Contains(p.Output, "spin_wait") {
			t.Errorf("the program wrote %q", p.Output)
		}
	}
	want := []string{`list of "" in step 4: exit status 0, stopped false`, `nap of "a" in step 4: killed by SIGKILL, stopped true`, `beside of "b" in step 0: killed by SIGTERM, stopped true`}
	if !slices.Equal(programs, want) {
		t.Errorf("programs %q", programs)
	}
}
