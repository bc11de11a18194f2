package spawn

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/spec"
)

// urgentTime is how long the spinners of urgentGroup go on.
const urgentTime = 6 * time.Second

// urgentGroup is spinners of priority 99 for every CPU, which end by themselves
// should nobody come to stop them.
func urgentGroup() spec.Group {
	g := group(2*runtime.NumCPU(), faultType, "kind", "exit", "after", urgentTime.String())
	g.Sched = &spec.Sched{Policy: "fifo", Priority: 99}
	return g
}

// outranking skips where the spawner cannot come before real-time workers.
func outranking(t *testing.T) {
	if policy := theCloner().policy; policy != fifo99 {
		t.Skipf("the spawner is %s: run as root, with RLIMIT_RTPRIO at 99", policy)
	}
}

// born is a workload at its gate.
func born(t *testing.T, g spec.Group) *Handle {
	t.Helper()
	h, err := Spawn(Workload{Groups: []spec.Group{g}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// TestUrgentWorkersHoldNobodyUp runs a handle to its end beside another whose
// workers have priority 99 on every CPU (S27).
func TestUrgentWorkersHoldNobodyUp(t *testing.T) {
	outranking(t)
	urgent, normal := born(t, urgentGroup()), born(t, group(2, "spin_wait"))
	ran := make(chan error, 1)
	go func() {
		_, err := normal.Run(t.Context(), 2*time.Second)
		ran <- err
	}()
	waitRunning(t, normal)
	urgent.Start()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	checkOrder(t, collect(t, normal), 2)
	checkOrder(t, collect(t, urgent), 2*runtime.NumCPU())
	if normal.endedNs.Load() >= urgent.openedNs.Load()+int64(urgentTime) {
		t.Error("the handle was collected only when the urgent workers of the other had ended by themselves")
	}
	for _, h := range []*Handle{normal, urgent} {
		if !strings.HasPrefix(h.Spawner(), "deadline:") {
			t.Errorf("the spawner was %s beside workers of priority 99", h.Spawner())
		}
	}
	h := born(t, group(1, "spin_wait"))
	if _, err := h.Run(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if h.Spawner() != fifo99 {
		t.Errorf("the spawner is still %s when they are gone", h.Spawner())
	}
}

// TestUrgentByThemselves runs work types whose workers may take priority 99
// without their group asking for it.
func TestUrgentByThemselves(t *testing.T) {
	for _, g := range []spec.Group{
		group(2, "rt_starvation", "rt_priority", 99),
		programGroup(1, "sleep=1h"),
	} {
		t.Run(g.Work.Type, func(t *testing.T) {
			outranking(t)
			h := born(t, g)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := h.Run(ctx, time.Minute); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(h.Spawner(), "deadline:") {
				t.Errorf("the spawner was %s", h.Spawner())
			}
		})
	}
}
