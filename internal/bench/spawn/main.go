// Command spawn measures births of workers, side by side in one run: guestinit's
// pipeline, a C program that forks as many processes with the same first steps,
// and a Go program that re-executes itself once per worker. It prints the median
// time from the first birth until all have counted themselves in, per worker,
// and the ratios, and beside it what all of a Spawn takes: it also checks the
// workload and makes its memory. The re-execution is left out above 1000 workers.
//
// A second table shows what grows with the number of workers: Spawn, start skew
// (of workers that sleep: spinners keep each other waiting for time slices),
// collection and memory, per worker, and against the same with 1000 workers.
//
// Usage: spawn [-rounds N] [WORKERS...]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// maxReexec is the most processes that are made by re-execution.
const maxReexec = 1000

func main() {
	if len(os.Args) == 2 && os.Args[1] == reexecArg {
		reexecChild()
	}
	rounds := flag.Int("rounds", 7, "rounds; the median counts")
	flag.Parse()
	if err := bench(*rounds, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "spawn:", err)
		os.Exit(1)
	}
}

func bench(rounds int, args []string) error {
	counts := []int{10, 100, 1000, 10_000}
	if len(args) > 0 {
		counts = nil
		for _, a := range args {
			n, err := strconv.Atoi(a)
			if err != nil || n <= 0 {
				return fmt.Errorf("%q is no number of workers", a)
			}
			counts = append(counts, n)
		}
	}
	twin, clean, err := compileTwin()
	if err != nil {
		return err
	}
	defer clean()
	if _, err := births(1); err != nil { // starts the cloning thread
		return err
	}
	fmt.Printf("births of workers, medians of %d rounds on %d CPUs\n\n", rounds, runtime.NumCPU())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workers\tguestinit us/worker\tworkers/s\tall of Spawn us/worker\tC fork us/worker\tratio\tGo re-exec us/worker\tre-exec ratio\tPSS KB/worker\t")
	var costs []cost
	for _, n := range counts {
		c, err := row(w, twin, n, rounds)
		if err != nil {
			return fmt.Errorf("%d workers: %w", n, err)
		}
		costs = append(costs, c)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return growth(costs)
}

// row measures one number of workers, the candidates in turn.
func row(w *tabwriter.Writer, twin string, n, rounds int) (cost, error) {
	var ours, whole, theirs, reexec, pss []float64
	var all [numCosts][]float64
	fork := func() error {
		d, err := runTwin(twin, n)
		theirs = append(theirs, us(d, n))
		return err
	}
	for round := range rounds {
		// Who comes first in a round meets what the last of the one before left to do.
		if round%2 == 0 {
			if err := fork(); err != nil {
				return cost{}, err
			}
		}
		b, err := births(n)
		if err != nil {
			return cost{}, err
		}
		if round%2 == 1 {
			if err := fork(); err != nil {
				return cost{}, err
			}
		}
		ours, whole, pss = append(ours, us(b.timing.Birth, n)), append(whole, us(b.spawned, n)), append(pss, b.pssKB)
		sleepers, err := sleep(n)
		if err != nil {
			return cost{}, err
		}
		for i, v := range [numCosts]float64{us(b.spawned, n), us(sleepers.timing.StartSkew, n), us(b.timing.Collect, n), sleepers.usedKB / float64(n)} {
			all[i] = append(all[i], v)
		}
		if n <= maxReexec {
			d, err := reexecAll(n)
			if err != nil {
				return cost{}, err
			}
			reexec = append(reexec, us(d, n))
		}
	}
	a, b := median(ours), median(theirs)
	again, againRatio := "-", "-"
	if len(reexec) > 0 {
		again, againRatio = fmt.Sprintf("%.1f", median(reexec)), fmt.Sprintf("%.1f", median(reexec)/a)
	}
	_, err := fmt.Fprintf(w, "%d\t%.1f\t%.0f\t%.1f\t%.1f\t%.2f\t%s\t%s\t%.0f\t\n", n, a, 1e6/a, median(whole), b, a/b, again, againRatio, median(pss))
	c := cost{workers: n}
	for i := range all {
		c.each[i] = median(all[i])
	}
	return c, err
}

func us(d time.Duration, n int) float64 { return float64(d) / float64(time.Microsecond) / float64(n) }
func ms(d time.Duration) float64        { return float64(d) / float64(time.Millisecond) }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// birth is one measured run of the pipeline.
type birth struct {
	spawned time.Duration // all of Spawn: admission, memory, births, until all stand at the gate
	timing  spawn.Timing
	pssKB   float64 // of one worker at the gate
	usedKB  float64 // that the machine had less of while all ran, the kernel's own included
}

// births brings up n spinning workers, starts, stops and collects them.
func births(n int) (b birth, err error) {
	begin := time.Now()
	h, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{{Workers: n, Work: spec.Work{Type: "spin_wait"}}}})
	if err != nil {
		return b, err
	}
	defer h.Close()
	b.spawned = time.Since(begin)
	if b.pssKB, err = pss(h.WorkerPIDs()[n/2]); err != nil {
		return b, err
	}
	reports, err := h.StopAndCollect()
	if err != nil {
		return b, err
	}
	for _, r := range reports {
		if !r.Completed {
			return b, fmt.Errorf("worker %d: %v", r.TID, r.ExitInfo)
		}
	}
	b.timing = h.Timing()
	return b, nil
}

// pss is the proportional set size of a process in KB.
func pss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("smaps_rollup of %d has no Pss", pid)
}

// compileTwin compiles testdata/fork.c.
func compileTwin() (path string, clean func(), err error) {
	_, self, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(self), "testdata", "fork.c")
	dir, err := os.MkdirTemp("", "guestinit-bench")
	if err != nil {
		return "", nil, err
	}
	clean = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, "fork")
	if out, err := exec.Command("gcc", "-O2", "-static", "-o", path, source).CombinedOutput(); err != nil {
		clean()
		return "", nil, fmt.Errorf("compile %s: %w\n%s", source, err, out)
	}
	return path, clean, nil
}

// runTwin runs the C program, which prints its time in nanoseconds.
func runTwin(path string, n int) (time.Duration, error) {
	out, err := exec.Command(path, strconv.Itoa(n)).Output()
	if err != nil {
		return 0, fmt.Errorf("run C twin: %w", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return time.Duration(ns), err
}
