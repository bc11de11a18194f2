package spawn

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// tooLarge are the parameters whose greatest value is too much for a test, with
// what is tried instead: files would fill the disk, and a thousand real-time workers
// keep the test from its CPUs for half a minute.
var tooLarge = map[string]uint64{"file_kib": 1 << 16, "high_count": 16, "medium_count": 16, "low_count": 16, "rt_workers": 16}

// crowd is how many workers stop on time on a machine with few CPUs.
const crowd = 8

// TestLongEndsOfRanges runs every work type with each of its parameters at both
// ends of its range, and with all of them there, on one CPU and on all, in every
// mode: whatever a range allows, workers report, stop on time and leave nothing
// behind.
func TestLongEndsOfRanges(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes five minutes; try: make check-all")
	}
	for i := range worker.Types {
		typ := &worker.Types[i]
		if typ.Name == faultType || typ.NeedsParams() {
			continue
		}
		all := [2][]any{}
		for j := range typ.Params {
			p := &typ.Params[j]
			if p.Kind != worker.Count && p.Kind != worker.Duration {
				continue
			}
			most := p.Max
			if n, ok := tooLarge[p.Name]; ok {
				most = n
			}
			for end, n := range [2]uint64{p.Min, most} {
				var v any = n
				if p.Kind == worker.Duration {
					v = time.Duration(n).String()
				}
				all[end] = append(all[end], p.Name, v)
				t.Run(fmt.Sprintf("%s/%s=%v", typ.Name, p.Name, v), func(t *testing.T) { runExtreme(t, Fork, nil, typ, p.Name, v) })
			}
		}
		one := &spec.Affinity{Exact: spec.CPUList{0}}
		for _, mode := range modes {
			t.Run(typ.Name+"/one CPU/"+mode, func(t *testing.T) { runExtreme(t, mode, one, typ) })
			t.Run(typ.Name+"/least on one CPU/"+mode, func(t *testing.T) { runExtreme(t, mode, one, typ, all[0]...) })
			t.Run(typ.Name+"/most/"+mode, func(t *testing.T) { runExtreme(t, mode, nil, typ, all[1]...) })
		}
	}
}

// runExtreme runs one set of workers of a type for a moment.
func runExtreme(t *testing.T, mode string, where *spec.Affinity, typ *worker.Type, params ...any) {
	g := group(0, typ.Name, params...)
	g.Affinity = where
	work, err := worker.Parse(g.Work)
	if err != nil {
		t.Fatal(err)
	}
	g.Workers = work.GroupSize()
	if refused(typ, mode) != nil {
		return // TestEveryTypeReports looks at the refusals
	}
	if typ.Resource == worker.CgroupLeaves || typ.Resource == worker.CgroupTarget {
		needCgroups(t)
	}
	took := stopBound + 1
	for try := 0; took > stopBound && try < stopTries; try++ {
		h := startMode(t, mode, g)
		time.Sleep(100 * time.Millisecond)
		checkExtreme(t, collect(t, h))
		took = h.Timing().Collect
		t.Logf("stopping %d workers took %v", g.Workers, took)
		if g.Workers > crowd {
			return
		}
	}
	if took > stopBound {
		t.Errorf("stopping took more than %v, %d times", stopBound, stopTries)
	}
}

func checkExtreme(t *testing.T, reports []report.Worker) {
	t.Helper()
	gap := uint64(0)
	for i := range reports {
		r := &reports[i]
		gap = max(gap, r.MaxGapNs)
		if !r.Completed || r.Partial || r.ExitInfo != nil || len(r.SoftErrors) > 0 {
			t.Errorf("worker %d: completed %v, partial %v, exit info %+v, soft errors %v", r.Index, r.Completed, r.Partial, r.ExitInfo, r.SoftErrors)
		}
	}
	t.Logf("the longest gap was %v", time.Duration(gap))
}
