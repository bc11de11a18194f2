package report

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestAggregateSums(t *testing.T) {
	r := &Report{Workers: []Worker{
		{GroupIndex: 1, WorkType: "spin_wait", Completed: true, Iterations: 100, WallNs: 2e9, CPUNs: 5, Migrations: 3, CPUsUsed: "0-2,7", MaxGapNs: 9, Schedstat: Schedstat{RunDelayNs: 4, RunCount: 2}},
		{GroupIndex: 1, WorkType: "spin_wait", Iterations: 50, WallNs: 1e9, CPUNs: math.MaxUint64, Migrations: 1, CPUsUsed: "3,8", MaxGapNs: 11, Schedstat: Schedstat{RunDelayNs: 6, RunCount: 1}},
		{GroupIndex: 1, WorkType: "spin_wait", CPUsUsed: ""}, // a sentinel: no wall time, no rate
	}}
	r.Aggregate([]GroupInfo{{Name: "first", WorkType: "bursty", Workers: 2}})
	if len(r.Groups) != 2 {
		t.Fatalf("%d groups", len(r.Groups))
	}
	g := r.Groups[1]
	if g.Name != "g1" || g.WorkType != "spin_wait" || g.Workers != 3 || g.Completed != 1 {
		t.Errorf("identity: %+v", g)
	}
	if g.Iterations != 150 || g.IterationsPerS != 100 || g.Migrations != 4 || g.CPUsUsed != "0-3,7-8" || g.MaxGapNs != 11 ||
		g.RunDelayNs != 10 || g.RunCount != 3 || g.CPUNs != math.MaxUint64 || g.WallNs != 3e9 || g.WakeLatency != nil {
		t.Errorf("figures: %+v", g)
	}
	if e := r.Groups[0]; e.Name != "first" || e.Workers != 2 || e.Completed != 0 {
		t.Errorf("group without workers: %+v", e)
	}
}

func TestJudge(t *testing.T) {
	done, crashed := Worker{Completed: true}, Worker{ExitInfo: &ExitInfo{Kind: ExitSignaled, Signal: 9}}
	tests := []struct {
		name string
		r    Report
		want Verdict
		line string
	}{
		{"no workers", Report{}, Pass, ""},
		{"done", Report{Workers: []Worker{done}, Groups: []Group{{Workers: 1}}}, Pass, ""},
		{"crashed", Report{Workers: []Worker{done, crashed}, Groups: []Group{{Name: "a", Workers: 2}}}, Fail, "worker 0 of group a (, tid 0): signal 9 (SIGKILL)"},
		{"none reported", Report{Groups: []Group{{Name: "a", Workers: 3}}}, Fail, "group a: 3 of 3 workers have no report"},
		{"none reported, and why", Report{Failures: []string{"guest crashed"}, Groups: []Group{{Name: "a", Workers: 3}, {Name: "b", Workers: 1}}}, Fail, "guest crashed"},
		{"missing", Report{Workers: []Worker{done}, Groups: []Group{{Name: "a", Workers: 3}}}, Fail, "group a: 2 of 3 workers have no report"},
		{"failed otherwise", Report{Failures: []string{"scheduler died"}}, Fail, "scheduler died"},
	}
	for _, tt := range tests {
		for range 2 { // the second time changes nothing
			tt.r.Judge()
			if tt.r.Verdict != tt.want || strings.Join(tt.r.Failures, "\n") != tt.line {
				t.Errorf("%s: %s, %q", tt.name, tt.r.Verdict, tt.r.Failures)
			}
		}
	}
}

func TestJudgeIsBounded(t *testing.T) {
	r := &Report{Workers: make([]Worker, 5000)}
	for i := range r.Workers {
		r.Workers[i].Index = i
	}
	r.Judge()
	if len(r.Failures) != maxFailureLines+1 || r.Failures[maxFailureLines] != "4980 more workers did not complete" {
		t.Errorf("%d failures, the last %q", len(r.Failures), r.Failures[len(r.Failures)-1])
	}
}

func TestEnding(t *testing.T) {
	for want, w := range map[string]Worker{
		"completed":                 {Completed: true},
		"did not complete":          {},
		"exited with status 3":      {ExitInfo: &ExitInfo{Kind: ExitExited, Code: 3}},
		"signal 11 (SIGSEGV): at 0": {ExitInfo: &ExitInfo{Kind: ExitSignaled, Signal: 11, Text: "at 0"}},
		"signal 99":                 {ExitInfo: &ExitInfo{Kind: ExitSignaled, Signal: 99}},
		"did not stop in time; partial figures kept":         {Partial: true, ExitInfo: &ExitInfo{Kind: ExitTimedOut}},
		"its end could not be learned: no child processes":   {ExitInfo: &ExitInfo{Kind: ExitWaitFailed, Text: "no child processes"}},
		"panicked: index out of range; partial figures kept": {Partial: true, ExitInfo: &ExitInfo{Kind: ExitPanicked, Text: "index out of range"}},
		"abducted": {ExitInfo: &ExitInfo{Kind: "abducted"}},
	} {
		if got := w.Ending(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCPUSet(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "0": "0", "3,1,2": "1-3", "0-63,64": "0-64", "8191": "8191", "0-8191": "0-8191", "5-6,63-65,6-9": "5-9,63-65",
	} {
		var s cpuSet
		if err := s.add(in); err != nil || s.String() != want {
			t.Errorf("%q: %q, %v", in, s.String(), err)
		}
	}
	for _, bad := range []string{"x", "1-", "-1", "3-1", "8192", "1,", " 1", "0-99999999999"} {
		if err := new(cpuSet).add(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func ExampleReport_WorkerName() {
	r := &Report{Groups: []Group{{Name: "pipes"}}}
	fmt.Println(r.WorkerName(&Worker{Index: 1, WorkType: "pipe_io", TID: 214}))
	// Output: worker 1 of group pipes (pipe_io, tid 214)
}
