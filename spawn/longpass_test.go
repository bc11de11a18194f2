package spawn

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// TestLongPassesHavePhases has the first worker of a set be in a pass that would
// take hours while the phase changes: it notices in the middle of it, and has work
// in the slices before and after.
func TestLongPassesHavePhases(t *testing.T) {
	const many = uint64(1_000_000_000)
	for _, c := range []struct {
		name   string
		params []any
	}{
		{"bursty", []any{"burst_duration", "24h"}},
		{"idle_churn", []any{"burst_duration", "24h"}},
		{"sequence", []any{"phases", []any{map[string]any{"spin": "24h"}}}},
		{"sequence", []any{"phases", []any{map[string]any{"yield": "24h"}}}},
		{"sequence", []any{"phases", []any{map[string]any{"alu_hot": "24h"}}}},
		{"sequence", []any{"phases", []any{map[string]any{"io": "24h"}}}},
		{"ipc_variance", []any{"hot_iters", many}},
		{"ipc_variance", []any{"hot_iters", uint64(1), "cold_iters", many}},
		{"ipc_variance", []any{"hot_iters", uint64(1), "cold_iters", uint64(1), "period_iters", many}},
		{"pipe_io", []any{"burst_iters", many}},
		{"epoll_storm", []any{"events_per_burst", many}},
		{"cache_pipe", []any{"burst_iters", many}},
		{"page_fault_churn", []any{"touches_per_cycle", many}},
		{"fan_out_compute", []any{"operations", many, "fan_out", uint64(1)}},
		{"wake_chain", []any{"work_per_hop", "24h", "wake", "futex"}},
		{"signal_storm", []any{"signals_per_iter", many}},
	} {
		t.Run(fmt.Sprintf("%s/%v", c.name, c.params), func(t *testing.T) {
			g := group(0, c.name, c.params...)
			work, err := worker.Parse(g.Work)
			if err != nil {
				t.Fatal(err)
			}
			g.Workers = work.GroupSize()
			w := Workload{Groups: []spec.Group{g}, Phases: 1}
			if refused(work.Type, Fork) != nil {
				w.CloneMode = Thread
			}
			h, err := Spawn(w)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			h.Start()
			i := 0
			if c.name == "fan_out_compute" {
				i = 1 // the receiver
			}
			s := h.members[i].slab
			units := func() uint64 { return atomic.LoadUint64(&s.WorkUnits) }
			await(t, "work", func() bool { return units() > 0 })
			h.SetPhase(1)
			await(t, "the change of phase in the middle of a pass", func() bool { return atomic.LoadUint32(&s.PhaseCount) == 1 })
			was := units()
			await(t, "work in the second phase", func() bool { return units() > was })
			r := collect(t, h)[i]
			if len(r.Phases) != 2 || r.Phases[0].WorkUnits == 0 || r.Phases[1].WorkUnits == 0 || r.Phases[0].WorkUnits+r.Phases[1].WorkUnits != r.WorkUnits {
				t.Errorf("%d units, in slices %+v", r.WorkUnits, r.Phases)
			}
		})
	}
}
