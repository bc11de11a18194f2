package main

import (
	"slices"
	"time"

	"github.com/guestinit/guestinit/spec"
)

const (
	timerInterval = time.Millisecond
	// maxLatencyNs is where the longest histogram ends that cyclictest makes.
	maxLatencyNs = 1_000_000

	// noisy is how many times as many rounds timers get, and turns in how many turns
	// each side measures in such a round: how late the machine wakes anybody changes
	// by half within seconds, so the shorter the turns, the more alike are both sides.
	noisy = 6
	turns = 5

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
			func() ([]float64, error) { return b.cyclictest("--policy=other") }, noisy, turns, percentilesOf},
		{"timer-fifo", percentiles,
			func() ([]float64, error) { return b.timers(&spec.Sched{Policy: "fifo", Priority: 80}) },
			func() ([]float64, error) { return b.cyclictest("--policy=fifo", "--priority=80") }, noisy, turns, percentilesOf},
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
				func() ([]float64, error) { return b.perfPipe(placed.pinned) }, 1, 1, nil},
			comparison{"chain-" + placed.suffix, trips(placed.goal),
				func() ([]float64, error) { return b.passes(b.group(placed.pinned, 2, "wake_chain", chain)) },
				func() ([]float64, error) { return b.perfPipe(placed.pinned) }, 1, 1, nil},
			comparison{"futex-" + placed.suffix, trips(placed.goal),
				func() ([]float64, error) {
					return b.passes(b.group(placed.pinned, 2, "futex_ping_pong", pingPong))
				},
				func() ([]float64, error) { return b.futexTwin(placed.pinned) }, 1, 1, nil})
	}
	return append(all,
		comparison{"faults", []figure{{"faults/s", goal{}}}, b.faults, b.stressFault, 1, 1, nil},
		comparison{"hackbench", []figure{{"messages/s", goal{}}}, b.messages,
			func() ([]float64, error) { return b.hackbench(crowd) }, 1, 1, nil})
}

// percentilesOf are the median and the 99th percentile of latencies in ns, in µs.
func percentilesOf(ns []float64) ([]float64, error) {
	slices.Sort(ns)
	values := []float64{nearestRank(ns, 0.50) / 1000, nearestRank(ns, 0.99) / 1000}
	if len(ns) == 0 || values[1] >= maxLatencyNs/1000 {
		return nil, errBusy
	}
	return values, nil
}

// nearestRank is a percentile of values that ascend.
func nearestRank(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(p*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
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
