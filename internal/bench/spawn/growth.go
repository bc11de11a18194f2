package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// What each worker costs.
const (
	costSpawn   = iota // us
	costSkew           // us
	costCollect        // us
	costMemory         // KB of the machine
	numCosts
)

// costNames are the headings of the costs.
var costNames = [numCosts]string{"spawn us", "start skew us", "collect us", "memory KB"}

// cost is what each of a number of workers costs.
type cost struct {
	workers int
	each    [numCosts]float64
}

// growthBase is the number of workers that the others are compared with.
const growthBase = 1000

// growth prints the costs per worker, and each against the same of growthBase
// workers, or of the most there are.
func growth(costs []cost) error {
	base := costs[len(costs)-1]
	for _, c := range costs {
		if c.workers == growthBase {
			base = c
		}
	}
	fmt.Printf("\nper worker, and against %d workers: linear growth is 1\n\n", base.workers)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "workers\t%s\tratio\t\n", strings.Join(costNames[:], "\tratio\t"))
	for _, c := range costs {
		fmt.Fprintf(w, "%d\t", c.workers)
		for i, v := range c.each {
			fmt.Fprintf(w, "%.1f\t%.2f\t", v, v/base.each[i])
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// sleep brings up n workers that sleep most of the time, lets them run until all
// have begun and a while longer, and collects them.
func sleep(n int) (b birth, err error) {
	before, err := availableKB()
	if err != nil {
		return b, err
	}
	work := spec.Work{Type: "bursty", Params: map[string]any{"burst_duration": "10us", "sleep_duration": "10s"}}
	h, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{{Workers: n, Work: work}}})
	if err != nil {
		return b, err
	}
	defer h.Close()
	run := 100*time.Millisecond + time.Duration(n)*200*time.Microsecond
	measured := make(chan error, 1)
	time.AfterFunc(run*3/4, func() {
		after, err := availableKB()
		b.usedKB = before - after
		measured <- err
	})
	reports, err := h.Run(context.Background(), run)
	if err := errors.Join(err, <-measured); err != nil {
		return b, err
	}
	for _, r := range reports {
		if !r.Completed || r.WorkUnits == 0 {
			return b, fmt.Errorf("worker %d: %d work units, %v", r.TID, r.WorkUnits, r.ExitInfo)
		}
	}
	b.timing = h.Timing()
	return b, nil
}

// availableKB is MemAvailable of the machine.
func availableKB() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemAvailable:" {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemAvailable")
}
