package e2e

import (
	"os"
	"testing"
)

// crowdSpec is ten thousand workers that work once and then sleep: an emulated CPU has
// no time for more than their start.
const crowdSpec = `version: 1
name: ten-thousand
duration: 20s
deadline: 4m
groups:
  - {name: sleepers, workers: 10000, work: {type: bursty, burst_duration: 10us, sleep_duration: 1h}}
`

// TestLongTenThousandWorkers runs ten thousand forked workers in a guest with two
// CPUs and 4 GiB, on every kernel: each starts, runs, stops and commits a report of
// its own.
func TestLongTenThousandWorkers(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes some minutes a kernel; try: make check-all")
	}
	path := writeSpec(t, crowdSpec)
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			r := guestinit(t, "", "run", "--kernel", kernelDir(t, line), "--accel", "tcg", "--cpus", "2", "--memory", "4G", "--json", "-", path)
			if r.status != 0 {
				t.Fatalf("exit status %d\n%.2000s", r.status, r.stderr)
			}
			workers := r.report(t).Workers
			real := 0
			for i := range workers {
				if w := &workers[i]; w.Completed && w.ExitInfo == nil && w.Index == i && w.WallNs > 0 {
					real++
				}
			}
			if len(workers) != 10_000 || real != 10_000 {
				t.Errorf("%d reports, %d of them real", len(workers), real)
			}
		})
	}
}
