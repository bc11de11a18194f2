package scenario

import (
	"strings"
	"testing"

	"github.com/guestinit/guestinit/report"
)

// TestSchedulerMissing has a scheduler that cannot be tried: nothing runs.
func TestSchedulerMissing(t *testing.T) {
	s, err := Parse([]byte("version: 1\nduration: 10ms\nscheduler: /nonexistent/scx\ngroups: [{workers: 1, work: spin_wait}]\n"), "spec")
	if err != nil {
		t.Fatal(err)
	}
	if paths, programs := Programs(s); len(paths) != 1 || paths[0] != "scheduler.path" || programs[0] != "/nonexistent/scx" {
		t.Errorf("programs %q at %q", programs, paths)
	}
	began := false
	_, err = Run(t.Context(), s, report.Run{}, Sink{Begin: func(report.Run) error { began = true; return nil }})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/scx") || began {
		t.Errorf("error %v, began %v", err, began)
	}
}
