package workload_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"github.com/guestinit/guestinit/guest/workload"
	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/worker"
	"github.com/guestinit/guestinit/worker/walktest"
)

// collatz is a work type of this program's own: each iteration follows one number
// down to 1.
func collatz(s *worker.Slab) {
	for start := uint64(1); !s.Stopped(); start++ {
		units := uint64(0)
		for n := start; n > 1; units++ {
			if n&1 == 0 {
				n >>= 1
			} else {
				n = 3*n + 1
			}
		}
		s.WorkUnits += units
		s.Pass()
	}
}

// TestMain: on the host the program runs its tests; as /init of a guest it runs
// the workload. The work type is known in both.
func TestMain(m *testing.M) {
	err := worker.Register(worker.Type{Name: "collatz", Summary: "follow numbers down to 1"}, collatz)
	if err != nil {
		log.Fatal(err)
	}
	workload.Init("example")
	os.Exit(m.Run())
}

// A loop that is no work of the Go runtime's, proved by its machine code.
func TestCollatz(t *testing.T) { walktest.StaysOut(t, collatz) }

// A Go program boots itself in a kernel of the cache and runs its own work there,
// beside a timer thread.
func Example() {
	s, err := scenario.Parse([]byte(`
version: 1
name: example
duration: 200ms
groups:
  - {name: load, workers: 2, work: collatz}
  - {name: timer, workers: 1, work: {type: timer_latency, interval: 1ms}, sched: {policy: fifo, priority: 50}}
`), "example")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	res, err := launch.Run(ctx, launch.Options{Spec: s})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Report.Verdict)
	for _, w := range res.Report.Workers {
		fmt.Println(w.WorkType, w.Completed, w.Iterations > 0)
	}
	// Output:
	// pass
	// collatz true true
	// collatz true true
	// timer_latency true true
}
