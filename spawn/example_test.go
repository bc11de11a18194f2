package spawn_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// Two processes that spin for a moment.
func ExampleSpawn() {
	h, err := spawn.Spawn(spawn.Workload{
		Groups: []spec.Group{{Workers: 2, Work: spec.Work{Type: "spin_wait"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	reports, err := h.Run(context.Background(), 100*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range reports {
		fmt.Println(r.WorkType, r.Index, r.Completed, r.Iterations > 0)
	}
	// Output:
	// spin_wait 0 true true
	// spin_wait 1 true true
}

// The same work by threads of this process, which goes on beside them.
func ExampleSpawn_thread() {
	h, err := spawn.Spawn(spawn.Workload{
		CloneMode: spawn.Thread,
		Groups:    []spec.Group{{Workers: 2, Work: spec.Work{Type: "futex_ping_pong"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	reports, err := h.Run(context.Background(), 100*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range reports {
		fmt.Println(r.WorkType, r.Index, r.Completed, r.WakeLatency.Count > 0)
	}
	// Output:
	// futex_ping_pong 0 true true
	// futex_ping_pong 1 true true
}

// Groups of different work side by side, the second one nicer than the first.
// Reports come in the order of the groups.
func ExampleSpawn_composed() {
	nice := 10
	h, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{
		{Workers: 2, Work: spec.Work{Type: "pipe_io", Params: map[string]any{"burst_iters": uint64(100)}}},
		{Workers: 1, Nice: &nice, Work: spec.Work{Type: "timer_latency", Params: map[string]any{"interval": "1ms"}}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	reports, err := h.Run(context.Background(), 100*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range reports {
		fmt.Printf("%d %d %s nice %q\n", r.GroupIndex, r.Index, r.WorkType, r.Settings["nice"].Asked)
	}
	// Output:
	// 0 0 pipe_io nice ""
	// 0 1 pipe_io nice ""
	// 1 0 timer_latency nice "10"
}

// A container: one process with a name of its own, whose threads are the
// workers.
func ExampleSpawn_container() {
	h, err := spawn.Spawn(spawn.Workload{
		Groups: []spec.Group{{Workers: 3, Pcomm: "postgres", Comm: "backend", Work: spec.Work{Type: "bursty"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	fmt.Println(len(h.WorkerPIDs()), "process")
	reports, err := h.Run(context.Background(), 100*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(reports), "reports, each called", reports[0].Settings["comm"].Got)
	// Output:
	// 1 process
	// 3 reports, each called backend
}

// Counters of running workers can be read at any time, at the cost of a load
// each.
func ExampleHandle_SnapshotIterations() {
	h, err := spawn.Spawn(spawn.Workload{
		Groups: []spec.Group{{Workers: 1, Work: spec.Work{Type: "spin_wait"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	fmt.Println("at the gate:", h.SnapshotIterations())
	h.Start()
	for h.SnapshotIterations()[0] == 0 {
		time.Sleep(time.Millisecond)
	}
	first := h.SnapshotIterations()[0]
	for h.SnapshotIterations()[0] == first {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("running:", h.SnapshotIterations()[0] > first)
	reports, err := h.StopAndCollect()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("collected:", reports[0].Iterations >= first)
	// Output:
	// at the gate: [0]
	// running: true
	// collected: true
}
