package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestGood(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(data, file)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		checkRoundTrip(t, s)
	}
}

func parseGood(t *testing.T, name string) *Spec {
	t.Helper()
	data, err := os.ReadFile("testdata/good/" + name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(data, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPlaced: the flat list of groups says where each runs, in a fixed order.
func TestPlaced(t *testing.T) {
	s := parseGood(t, "scenario.yaml")
	var got []string
	for _, g := range s.Placed() {
		got = append(got, fmt.Sprintf("%s %s %q %s", g.Name, s.StepName(g.Step), g.Cgroup, g.Path))
	}
	want := []string{
		`timers backdrop "" backdrop.groups[0]`,
		`load backdrop "background" backdrop.cgroups[0].groups[0]`,
		`other backdrop "background" backdrop.cgroups[0].groups[1]`,
		`nested backdrop "outer/inner" backdrop.cgroups[1].cgroups[0].groups[0]`,
		`free step1 "" steps[1].groups[0]`,
		`quick step1 "local" steps[1].cgroups[0].groups[0]`,
		`quick grow "late" steps[2].ops[0].add_cgroup.groups[0]`,
		`more grow "late" steps[2].ops[1].spawn.groups[0]`,
		`free grow "" steps[2].ops[2].spawn.groups[0]`,
		`last step3 "" steps[3].groups[0]`,
		`rest rest "" steps[4].groups[0]`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := s.Workers(); n != 12 || !s.Elastic() {
		t.Errorf("%d workers, elastic %v", n, s.Elastic())
	}
	flat := parseGood(t, "cgroups.yaml")
	names := []string{}
	for _, g := range flat.Placed() {
		names = append(names, g.Name+flat.StepName(g.Step))
	}
	if !reflect.DeepEqual(names, []string{"g0", "g1", "g2"}) {
		t.Errorf("names %v", names)
	}
}

// TestInheritance: groups take what they leave out from the nearest cgroup.
func TestInheritance(t *testing.T) {
	s := parseGood(t, "scenario.yaml")
	g := s.Placed()
	load, other, nested := g[1], g[2], g[3]
	if *load.Nice != 5 || load.Sched.Policy != SchedBatch || load.Comm != "bg" || *load.UID != 1000 || *load.GID != 1000 ||
		*load.NUMANode != 0 || !reflect.DeepEqual(load.Affinity.Exact, CPUList{0, 1}) || load.MemPolicy.Mode != MemLocal {
		t.Errorf("load has %+v", load.Group)
	}
	if *other.Nice != 0 || other.Comm != "bg" {
		t.Errorf("other has %+v", other.Group)
	}
	if *nested.Nice != 1 || nested.Comm != "y" {
		t.Errorf("nested has %+v", nested.Group)
	}
}

// TestLateInheritance: what operations start in a cgroup inherits as what was
// there from the start, and nothing of a cgroup of that name in another step.
func TestLateInheritance(t *testing.T) {
	s, err := Parse([]byte(`
version: 1
duration: 3s
backdrop:
  cgroups: [{name: o, defaults: {nice: 7, comm: outer}, cgroups: [{name: i, defaults: {nice: 3}}]}]
  ops: [{spawn: {cgroup: o/i, groups: [{name: early, workers: 1, work: x}]}}]
steps:
  - ops:
      - add_cgroup: {name: o/j, defaults: {uid: 5}, groups: [{name: added, workers: 1, work: x}]}
      - spawn: {cgroup: o/i, groups: [{name: spawned, workers: 1, work: x, nice: 1}]}
      - spawn: {cgroup: o/j, groups: [{name: both, workers: 1, work: x}]}
  - ops:
      - add_cgroup: {name: o/j}
      - spawn: {cgroup: o/j, groups: [{name: again, workers: 1, work: x}]}
      - spawn: {groups: [{name: outside, workers: 1, work: x}]}
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range s.Placed() {
		nice, uid := "-", "-"
		if g.Nice != nil {
			nice = fmt.Sprint(*g.Nice)
		}
		if g.UID != nil {
			uid = fmt.Sprint(*g.UID)
		}
		got = append(got, fmt.Sprintf("%s %s %s %q", g.Name, nice, uid, g.Comm))
	}
	want := []string{`early 3 - "outer"`, `added 7 5 "outer"`, `spawned 1 - "outer"`, `both 7 5 "outer"`, `again 7 - "outer"`, `outside - - ""`}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestThresholds: who is judged by what in which step.
func TestThresholds(t *testing.T) {
	s, err := Parse([]byte(`
version: 1
duration: 3s
checks: {min_work_rate: 1, min_iteration_rate: 1}
backdrop:
  cgroups:
    - {name: a, checks: {min_work_rate: 2}, cgroups: [{name: i, groups: [{name: far, workers: 1, work: x, checks: {max_migration_ratio: 2}}]}]}
  groups: [{name: free, workers: 1, work: x}]
steps:
  - name: one
    checks: {min_work_rate: 3, max_migration_ratio: 3}
  - name: two
    checks: {min_work_rate: 4}
    checks_of: [{cgroup: a, checks: {min_work_rate: 6}}, {group: far, checks: {max_migration_ratio: 7}}, {group: near, checks: {min_iteration_rate: 8}}]
    cgroups: [{name: b, checks: {min_work_rate: 5}, groups: [{name: near, workers: 1, work: x}]}]
  - {name: three}
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	of := func(c *Checks) string {
		if c == nil {
			return "none"
		}
		var list []string
		for _, v := range []*float64{c.MinWorkRate, c.MinIterRate, c.MaxMigration} {
			if v == nil {
				list = append(list, "-")
				continue
			}
			list = append(list, fmt.Sprint(*v))
		}
		return strings.Join(list, " ")
	}
	var got []string
	for _, g := range s.Placed() {
		for _, step := range []int{WholeRun, 0, 1, 2} {
			around, own := s.Thresholds(g)(step)
			got = append(got, fmt.Sprintf("%s %d: %s; own %s; spoken of %v", g.Name, step, of(around), of(own), step >= 0 && s.Steps[step].SpeaksOf(g)))
		}
	}
	want := []string{
		"free -2: 1 1 -; own none; spoken of false",
		"free 0: 3 1 3; own none; spoken of false",
		"free 1: 4 1 -; own none; spoken of false",
		"free 2: 1 1 -; own none; spoken of false",
		"far -2: 2 1 -; own - - 2; spoken of false",
		"far 0: 3 1 3; own 3 - 3; spoken of false",
		"far 1: 6 1 -; own 6 - 7; spoken of true",
		"far 2: 2 1 -; own - - 2; spoken of false",
		"near -2: 5 1 -; own - 8 -; spoken of false",
		"near 0: 5 1 -; own - 8 -; spoken of false",
		"near 1: 5 1 -; own - 8 -; spoken of true",
		"near 2: 5 1 -; own - 8 -; spoken of false",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHolds(t *testing.T) {
	got := parseGood(t, "scenario.yaml").Holds()
	want := []time.Duration{2500 * time.Millisecond, time.Second, time.Second, 2750 * time.Millisecond, 2750 * time.Millisecond}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseGood(t, "cgroups.yaml").Holds(); !reflect.DeepEqual(got, []time.Duration{time.Duration(DefaultDuration)}) {
		t.Errorf("without steps: %v", got)
	}
}

// TestLimits reads the values of limits and writes them as the kernel does.
func TestLimits(t *testing.T) {
	for in, want := range map[string]string{"50000 100000": "50000 100000", "max": "max 100000", "max 5000": "max 5000", "7000": "7000 100000", " 150% ": "150000 100000", "1%": "1000 100000"} {
		if m, err := ParseCPUMax(in); err != nil || m.String() != want {
			t.Errorf("cpu.max %q: %v, %v, want %s", in, m, err, want)
		}
	}
	for in, want := range map[string]string{"0": "0", "1024": "1K", "64M": "64M", "1536k": "1536K", "2G": "2G", "1T": "1T", "5": "5", "max": "max", " 3M": "3M", "9223372036854775807": "9223372036854775807"} {
		if b, err := ParseBytes(in); err != nil || b.String() != want {
			t.Errorf("bytes %q: %v, %v, want %s", in, b, err, want)
		}
	}
	for in, want := range map[string]string{"50%": "50%", "12.5": "12.5%", "0.01%": "0.01%", "100": "100%", "max": "100%", "7.": "7%"} {
		if p, err := ParsePercent(in); err != nil || p.String() != want {
			t.Errorf("percent %q: %v, %v, want %s", in, p, err, want)
		}
	}
	for _, in := range []string{"", "x", "0", "999", "5000 0", "5000 2000000", "-5", "1 2 3", "0%", "0.5%", "max max", "99999999999999999999", "9223372036854775807"} {
		if m, err := ParseCPUMax(in); err == nil {
			t.Errorf("cpu.max %q is %v", in, m)
		}
	}
	for _, in := range []string{"", "M", "-1", "1.5G", "1MB", "9223372036854775808", "9000000T", "64 M"} {
		if b, err := ParseBytes(in); err == nil {
			t.Errorf("bytes %q is %v", in, b)
		}
	}
	for _, in := range []string{"", "%", "-1", "+1", "1.234", "1.+1", "1e3", ".5", "99999999999"} {
		if p, err := ParsePercent(in); err == nil {
			t.Errorf("percent %q is %v", in, p)
		}
	}
}

// TestScenarioBounds is for specs that a program made.
func TestScenarioBounds(t *testing.T) {
	group := []Group{{Name: "g", Workers: 1, Work: Work{Type: "x"}}}
	for want, s := range map[string]*Spec{
		"clone_mode: thread cannot stand beside": {CloneMode: Thread, Cgroups: []Cgroup{{Name: "a", Groups: group}}},
		"steps: has 257 steps; at most 256":      {Steps: append(make([]Step, 256), Step{Groups: group})},
		"groups: has 513 cgroups; at most 512":   {Groups: group, Cgroups: make([]Cgroup, 513)},
		"steps: has 4097 ops; at most 4096":      {Steps: []Step{{Groups: group, Ops: make([]Op, 4097)}}},
		"backdrop: needs steps":                  {Groups: group, Backdrop: &Backdrop{}},
		"scheduler.path: \"x\" is no absolute":   {Groups: group, Scheduler: &Scheduler{Path: "x"}},
		"scheduler.args[0]: ":                    {Groups: group, Scheduler: &Scheduler{Path: "/x", Args: []string{"\x00"}}},
		"cgroups[0].pids.max: -1 is out":         {Groups: group, Cgroups: []Cgroup{{Name: "a", PidsMax: ptr(PidsMax(-1))}}},
		"cgroups[0].cpu.max: period":             {Groups: group, Cgroups: []Cgroup{{Name: "a", CPUMax: &CPUMax{}}}},
		"cgroups[0].cpuset.mems: 1024 is out":    {Groups: group, Cgroups: []Cgroup{{Name: "a", Mems: CPUList{1024}}}},
		"groups[0].workers_pct: 1000.01% is out": {Groups: []Group{{WorkersPct: 100_001, Work: Work{Type: "x"}}}},
		"steps[0].hold.fraction: 2 is out":       {Steps: []Step{{Groups: group, Hold: &Hold{Fraction: 2}}}},
		"steps[0].hold.fixed: -1ns is out":       {Steps: []Step{{Groups: group, Hold: &Hold{Fixed: ptr(Duration(-1))}}}},
		"nested too deep":                        {Groups: group, Cgroups: []Cgroup{nest(MaxCgroupDepth + 1)}},
	} {
		s.Version = 1
		s.SetDefaults()
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	s := &Spec{Version: 1, Groups: group, Cgroups: []Cgroup{nest(MaxCgroupDepth)}}
	s.SetDefaults()
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

// nest is so many cgroups inside each other.
func nest(levels int) Cgroup {
	c := Cgroup{Name: "c"}
	if levels > 1 {
		c.Cgroups = []Cgroup{nest(levels - 1)}
	}
	return c
}
