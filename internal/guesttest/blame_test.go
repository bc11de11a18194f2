package guesttest

import (
	"strings"
	"testing"
)

// TestBlame keeps what a failure needs, and nothing of what passed.
func TestBlame(t *testing.T) {
	passed := "=== RUN   TestGood\n    good_test.go:1: fine\n--- PASS: TestGood (0.01s)\n"
	many := strings.Repeat(passed, 100)
	failed := "=== RUN   TestBad\n=== RUN   TestBad/one\n[ 1.0] oops\n    bad_test.go:1: no\n--- FAIL: TestBad (0.01s)\n    --- FAIL: TestBad/one (0.01s)\n"
	skipped := "=== RUN   TestMeek\n    meek_test.go:1: not here\n--- SKIP: TestMeek (0.00s)\n"
	hung := "=== RUN   TestHung\n" + strings.Repeat("goroutine\n", 200)
	for _, c := range []struct {
		name, console, want, never string
	}{
		{"failure", many + failed + many, failed, many},
		{"failures", failed + many + skipped + failed + many, skipped + failed, many},
		{"skip", many + skipped + many, skipped, many},
		{"no end", many + hung, hung, many},
		{"short", "no test at all\n", "no test at all\n", passed},
		{"nothing", "", "", passed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Blame(c.console)
			if !strings.Contains(got, c.want) {
				t.Errorf("without %q:\n%s", c.want, got)
			}
			if strings.Contains(got, c.never) {
				t.Errorf("with what passed:\n%s", got)
			}
			if rest := c.console[len(c.console)-min(len(c.console), 60):]; !strings.HasSuffix(got, rest) {
				t.Errorf("ends in %q", got[max(0, len(got)-60):])
			}
		})
	}
}
