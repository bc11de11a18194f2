// Command boot measures what guestinit adds to a kernel's boot, side by side in
// one run, for each kernel named (a version in the cache, or a path):
//
//   - whole: a guest that runs a workload of one second and reports, less that
//     second, over virtio-serial and over virtio-vsock, against a static C
//     program as /init that powers off at once, both from the start of QEMU to
//     its end; what vsock costs more is the kernel's modules for it, mostly;
//   - start: the time from the kernel's "Run /init" to the first line of /init,
//     for guestinit, a minimal Go program and the C program, as seen on the
//     console with the kernel's messages on.
//
// It prints medians; those of ratios are of boots in the same round. Beside the
// guest, the launcher makes the image and reads the report: host.
//
// Usage: boot [-rounds N] [-init FILE] KERNEL...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/spec"
)

// workload runs for workloadTime, which is taken off the whole time.
const (
	workload     = `{"version": 1, "duration": "1s", "groups": [{"workers": 2, "work": {"type": "spin_wait"}}]}`
	workloadTime = time.Second
)

func main() {
	rounds := flag.Int("rounds", 5, "rounds; the median counts")
	init := flag.String("init", "bin/guestinit", "guestinit `FILE` to measure")
	flag.Parse()
	if err := bench(*rounds, *init, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

func bench(rounds int, init string, names []string) error {
	if len(names) == 0 {
		return errors.New("name kernels: versions in the cache (6.12) or paths")
	}
	dir, err := os.MkdirTemp("", "guestinit-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cInit, goInit, err := buildInits(dir)
	if err != nil {
		return err
	}
	s, err := spec.Parse([]byte(workload), "workload")
	if err != nil {
		return err
	}
	fmt.Printf("boots, medians of %d rounds\n\n", rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "kernel\twhole: serial ms\tvsock ms\tC ms\tratio serial\tratio vsock\thost ms\tstart: guestinit ms\tGo ms\tratio\tC ms\t")
	for _, name := range names {
		m := &machine{dir: dir, rounds: rounds, init: init, spec: s}
		if m.kernel, err = kernel.Named(name); err != nil {
			return err
		}
		if err := m.measure(w, cInit, goInit); err != nil {
			return fmt.Errorf("kernel %s: %w", m.kernel.Release, err)
		}
	}
	return w.Flush()
}

// buildInits compiles the two programs that guestinit is compared with.
func buildInits(dir string) (cInit, goInit string, err error) {
	_, self, _, _ := runtime.Caller(0)
	here := filepath.Dir(self)
	cInit, goInit = filepath.Join(dir, "c"), filepath.Join(dir, "go")
	goBuild := exec.Command("go", "build", "-ldflags", "-s -w", "-o", goInit, "./mininit")
	goBuild.Dir = here
	for _, cmd := range []*exec.Cmd{
		exec.Command("gcc", "-O2", "-static", "-s", "-o", cInit, filepath.Join(here, "testdata", "init.c")),
		goBuild,
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	return cInit, goInit, nil
}

// measure adds the row of one kernel.
func (m *machine) measure(w *tabwriter.Writer, cInit, goInit string) error {
	var serial, vsock, host, wholeC, start, startGo, startC []float64
	ctx := context.Background()
	for range m.rounds {
		for _, l := range []struct {
			link string
			to   *[]float64
		}{{"serial", &serial}, {"vsock", &vsock}} {
			guest, beside, err := m.guestinit(ctx, l.link)
			if err != nil {
				return fmt.Errorf("link %s: %w", l.link, err)
			}
			*l.to, host = append(*l.to, ms(guest)), append(host, ms(beside))
		}
		for _, c := range []struct {
			init    string
			verbose bool
			to      *[]float64
		}{{cInit, false, &wholeC}, {m.init, true, &start}, {goInit, true, &startGo}, {cInit, true, &startC}} {
			b, err := m.boot(ctx, c.init, c.verbose)
			if err != nil {
				return err
			}
			if c.verbose {
				*c.to = append(*c.to, ms(b.start))
			} else {
				*c.to = append(*c.to, ms(b.whole))
			}
		}
	}
	_, err := fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.0f\t%.1f\t%.1f\t%.2f\t%.1f\t\n", m.kernel.Release,
		median(serial), median(vsock), median(wholeC), quotient(serial, wholeC), quotient(vsock, wholeC), median(host),
		median(start), median(startGo), quotient(start, startGo), median(startC))
	return err
}

// quotient is the median of those of each round.
func quotient(a, b []float64) float64 {
	var q []float64
	for i := range a {
		q = append(q, a[i]/b[i])
	}
	return median(q)
}

// guestinit runs the workload in a guest and returns the time of the guest
// without the workload's own second, and what the launcher took beside it.
func (m *machine) guestinit(ctx context.Context, link string) (guest, beside time.Duration, err error) {
	res, err := launch.Run(ctx, launch.Options{Spec: m.spec, Kernel: m.kernel.Dir, Init: m.init, Accel: "tcg", Link: link})
	if err != nil {
		return 0, 0, err
	}
	return res.Guest - workloadTime, res.Took - res.Guest, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
