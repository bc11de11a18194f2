package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
)

// Thresholds of a spec decide over the exit status of a run on this machine.
func TestLocalChecks(t *testing.T) {
	for _, tt := range []struct {
		name, checks string
		status       int
		want         string
	}{
		{"met", "{zero_progress: true, isolation: true}", 0, "c: PASS"},
		{"missed", "{min_work_rate: 1000000000000000, unsound_timing: enforce}", 1, "group spin: min_work_rate: "},
		{"cannot be judged", "{max_wake_latency_cv: 1}", 0, "skip"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.yaml")
			text := "version: 1\nname: c\nduration: 50ms\nchecks: " + tt.checks + "\ngroups: [{name: spin, workers: 1, work: spin_wait}]\n"
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			status := run([]string{"local", file}, streams{strings.NewReader(""), &out, &errs})
			if status != tt.status || !strings.Contains(out.String(), tt.want) {
				t.Errorf("status %d, want %d with %q:\n%s%s", status, tt.status, tt.want, &out, &errs)
			}
		})
	}
}

// An inconclusive verdict has a status of its own, which a flag turns into
// success; no other one does it touch.
func TestAllowInconclusive(t *testing.T) {
	for _, tt := range []struct {
		verdict report.Verdict
		err     error
		lenient bool
		want    int
	}{
		{report.Inconclusive, nil, false, 6},
		{report.Inconclusive, nil, true, 0},
		{report.Fail, nil, true, 1},
		{report.Inconclusive, &launch.Error{Class: launch.Timeout}, true, 4},
	} {
		var out, errs bytes.Buffer
		o := output{lenient: tt.lenient}
		if got := o.finish(&report.Report{Verdict: tt.verdict}, tt.err, streams{nil, &out, &errs}); got != tt.want {
			t.Errorf("%+v: status %d", tt, got)
		}
	}
}
