package main

import (
	"time"

	"github.com/guestinit/guestinit/spec"
)

const (
	timerInterval = time.Millisecond
	// maxLatencyNs is where the longest histogram ends that cyclictest makes.
	maxLatencyNs = 1_000_000

	// noisy is how many times as many rounds timers get: with 27 the median of the
	// ratios still moved by a tenth from run to run, with 60 it does not.
	noisy = 6

	crowd = 4 // pairs of hackbench and of pipe_io beside it
)

// The targets: percentiles within a tenth, rates that lose a twentieth at most.
var (
	withinATenth = goal{0.90, 1.10}
	aTwentieth   = goal{from: 0.95}
)

// comparisons are all that is compared, in the order of docs/fidelity.md.
func (b *bench) comparisons() []comparison {
	percentiles := []figure{{"p50 us", withinATenth}, {"p99 us", withinATenth}}
	trips := func(g goal) []figure { return []figure{{"round trips/s", g}} }
	all := []comparison{
		{"timer-other", percentiles,
			func() ([]float64, error) { return b.timers(nil) },
			func() ([]float64, error) { return b.cyclictest("--policy=other") }, noisy},
		{"timer-fifo", percentiles,
			func() ([]float64, error) { return b.timers(&spec.Sched{Policy: "fifo", Priority: 80}) },
			func() ([]float64, error) { return b.cyclictest("--policy=fifo", "--priority=80") }, noisy},
	}
	noSpin := map[string]any{"burst_iters": uint64(0)}
	chain := map[string]any{"depth": uint64(2), "work_per_hop": "0s"}
	pingPong := map[string]any{"spin_iters": uint64(0)}
	for _, placed := range []struct {
		suffix string
		pinned bool
		goal   goal
	}{{"pinned", true, aTwentieth}, {"free", false, goal{}}} {
		all = append(all,
			comparison{"pipe-" + placed.suffix, trips(placed.goal),
				func() ([]float64, error) { return b.passes(b.group(placed.pinned, 2, "pipe_io", noSpin)) },
				func() ([]float64, error) { return b.perfPipe(placed.pinned) }, 1},
			comparison{"chain-" + placed.suffix, trips(placed.goal),
				func() ([]float64, error) { return b.passes(b.group(placed.pinned, 2, "wake_chain", chain)) },
				func() ([]float64, error) { return b.perfPipe(placed.pinned) }, 1},
			comparison{"futex-" + placed.suffix, trips(placed.goal),
				func() ([]float64, error) {
					return b.passes(b.group(placed.pinned, 2, "futex_ping_pong", pingPong))
				},
				func() ([]float64, error) { return b.futexTwin(placed.pinned) }, 1})
	}
	return append(all,
		comparison{"faults", []figure{{"faults/s", goal{}}}, b.faults, b.stressFault, 1},
		comparison{"hackbench", []figure{{"messages/s", goal{}}}, b.messages,
			func() ([]float64, error) { return b.hackbench(crowd) }, 1})
}

// messages are the bytes per second that pairs of pipe_io send, both ways.
func (b *bench) messages() ([]float64, error) {
	reports, err := b.run(b.group(false, 2*crowd, "pipe_io", map[string]any{"burst_iters": uint64(0)}))
	if err != nil {
		return nil, err
	}
	sum := 0.0
	for _, r := range reports {
		sum += perSecond(r.Iterations, r.WallNs)
	}
	return []float64{sum}, nil
}
