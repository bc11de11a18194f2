// Command stop measures how soon workers stop: from when the request is due to the
// last report collected. It prints the median and the worst of some rounds for a fork worker
// (or set of workers) of every work type, and for crowds of spinners that leave
// the spawner no CPU of its own. The crowds also run in a guest of each kernel that
// is named, where this program is /init. It fails if a median misses its goal.
//
// Usage: stop [-rounds N] [-crowd N] [-kernels "VERSION..."] [TYPE...]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// Goals of the medians.
const (
	typeGoal  = 150 * time.Millisecond
	crowdGoal = 2 * time.Second
)

func main() {
	rounds := flag.Int("rounds", 7, "rounds per work type; the median counts")
	crowd := flag.Int("crowd", 200, "spinners of a crowd")
	kernels := flag.String("kernels", "", "run the crowds in guests of these `VERSIONS` too")
	flag.Parse()
	if os.Getpid() == 1 {
		guestMain(*crowd)
	}
	err := bench(*rounds, *crowd, flag.Args())
	for _, name := range strings.Fields(*kernels) {
		err = errors.Join(err, benchGuest(name))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stop:", err)
		os.Exit(1)
	}
}

func bench(rounds, crowd int, names []string) error {
	fmt.Printf("from when the stop is due until all reports are collected, %d rounds on %d CPUs\n\n", rounds, runtime.NumCPU())
	missed, err := table(cases(crowd, names), rounds)
	if err == nil && missed > 0 {
		err = fmt.Errorf("%d goals missed", missed)
	}
	return err
}

// table measures the cases and prints a line for each. It returns how many missed
// their goal or failed.
func table(cases []stopCase, rounds int) (missed int, err error) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fork workers of\tworkers\tmedian ms\tworst ms\tgoal ms\t\t")
	for _, c := range cases {
		took, err := c.measure(rounds)
		if err != nil {
			if c.optional {
				fmt.Fprintf(w, "%s\t%d\t-\t-\t%d\tnot here: %v\t\n", c.name, c.workers(), c.goal.Milliseconds(), err)
				continue
			}
			fmt.Fprintf(w, "%s\t%d\t-\t-\t%d\tfailed: %v\t\n", c.name, c.workers(), c.goal.Milliseconds(), err)
			missed++
			continue
		}
		verdict := ""
		if took[len(took)/2] > c.goal {
			verdict = "missed"
			missed++
		}
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%d\t%s\t\n", c.name, c.workers(), ms(took[len(took)/2]), ms(took[len(took)-1]), c.goal.Milliseconds(), verdict)
	}
	return missed, w.Flush()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// stopCase is one line of the table.
type stopCase struct {
	name     string
	group    spec.Group
	goal     time.Duration
	run      time.Duration // how long the workers run before the request
	optional bool          // it may want rights or cgroups that are not here
}

func (c *stopCase) workers() int { return c.group.Workers }

// cases are the named work types or all but fault_injection, and the crowds.
func cases(crowd int, names []string) []stopCase {
	var all []stopCase
	for i := range worker.Types {
		t := &worker.Types[i]
		if t.Name == "fault_injection" || t.RefuseFork != "" || len(names) > 0 && !slices.Contains(names, t.Name) {
			continue
		}
		in := worker.Instance{Type: t}
		for p := range t.Params {
			in.Values[p] = t.Params[p].Default
		}
		cgroup := t.Resource == worker.CgroupLeaves || t.Resource == worker.CgroupTarget
		work := spec.Work{Type: t.Name}
		if t.Resource == worker.ExecProgram {
			work.Params = map[string]any{"argv": []any{"sleep", "1h"}}
		}
		all = append(all, stopCase{name: t.Name, goal: typeGoal, run: typeRun, optional: cgroup,
			group: spec.Group{Workers: in.GroupSize(), Work: work}})
	}
	if len(names) > 0 {
		return all
	}
	return append(all, crowds(crowd)...)
}

// crowds are workers that leave the spawner no CPU of its own.
func crowds(crowd int) []stopCase {
	spinner := spec.Work{Type: "spin_wait"}
	fifo := &spec.Sched{Policy: "fifo", Priority: 99}
	return []stopCase{
		{name: "a crowd of spinners", goal: crowdGoal, run: crowdRun, group: spec.Group{Workers: crowd, Work: spinner}},
		{name: "fifo 99 spinners on every CPU", goal: crowdGoal, run: crowdRun, group: spec.Group{Workers: runtime.NumCPU(), Work: spinner, Sched: fifo}},
	}
}

// How long workers run before the request to stop. Hundreds of spinners on two
// emulated CPUs take up to two seconds until the last has had its first turn, and
// are no crowd before.
const (
	typeRun  = 100 * time.Millisecond
	crowdRun = 3 * time.Second
)

// measure returns the times of the rounds, sorted.
func (c *stopCase) measure(rounds int) ([]time.Duration, error) {
	var took []time.Duration
	for range rounds {
		d, err := c.once()
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	return took, nil
}

// giveUp is when a run that does not end is ended by force: spinners of the
// highest priority would else keep the machine.
const giveUp = 15 * time.Second

// once runs the workers for a moment and stops them.
func (c *stopCase) once() (took time.Duration, err error) {
	h, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{c.group}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	hung := time.AfterFunc(giveUp, h.Kill)
	defer hung.Stop()
	reports, err := h.Run(context.Background(), c.run)
	if err != nil {
		return 0, err
	}
	for _, r := range reports {
		if !r.Completed {
			return 0, fmt.Errorf("worker %d of %d: %+v", r.Index, len(reports), r.ExitInfo)
		}
	}
	t := h.Timing()
	return t.Collect + max(t.Run-c.run, 0), nil // the request itself may be late
}
