package e2e

import (
	"os"
	"testing"
	"time"
)

// longBoots is how many boots in a row must go well.
const longBoots = 100

// TestLongBoots boots the three kernels in turn, a hundred times in all, with a
// short workload. Not one may fail or need a second attempt.
func TestLongBoots(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes about ten minutes; try: make check-all")
	}
	path := writeSpec(t, shortSpec)
	begin := time.Now()
	for i := range longBoots {
		line := lines[i%len(lines)]
		r := guestinit(t, "", "run", "--kernel", kernelDir(t, line), "--accel", "tcg", "--json", "-", path)
		if r.status != 0 {
			t.Fatalf("boot %d of %d, kernel %s: exit status %d\n%s", i+1, longBoots, line, r.status, r.stderr)
		}
		if n := r.report(t).Run.BootAttempts; n > 1 {
			t.Errorf("boot %d of %d, kernel %s: %d attempts", i+1, longBoots, line, n)
		}
	}
	t.Logf("%d boots without a failure in %v", longBoots, time.Since(begin).Round(time.Second))
}
