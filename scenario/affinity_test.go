package scenario

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/topology"
)

func intentSpec(intent string) *spec.Spec {
	s := &spec.Spec{Version: 1, Duration: spec.Duration(50 * time.Millisecond), Groups: []spec.Group{
		{Workers: 2, Work: spec.Work{Type: "yield_heavy"}, Affinity: &spec.Affinity{Intent: intent}},
	}}
	s.SetDefaults()
	return s
}

// An intent passes the check of a machine that cannot meet it, and is CPUs by
// the time that workers are born.
func TestIntents(t *testing.T) {
	top, err := topology.Read()
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := allowedCPUs(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, intent := range []string{spec.AffinitySingleCPU, spec.AffinityLLCAligned, spec.AffinitySMTSiblingPair} {
		t.Run(intent, func(t *testing.T) {
			s := intentSpec(intent)
			if err := Validate(s); err != nil {
				t.Fatal(err)
			}
			want, wantErr := top.Affinity(s.Groups[0].Affinity, allowed)
			var workers []report.Worker
			_, err := Run(context.Background(), s, report.Run{}, Sink{Worker: func(w *report.Worker) error {
				workers = append(workers, *w)
				return nil
			}})
			if wantErr != nil { // this machine cannot
				if err == nil || !strings.HasSuffix(err.Error(), wantErr.Error()) || !strings.HasPrefix(err.Error(), "groups[0].affinity: ") {
					t.Errorf("got %v, want %v", err, wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range workers {
				if got := w.Settings["affinity"]; got.Asked != want.Exact.String() || got.Got != got.Asked {
					t.Errorf("worker %d: %+v, want %s", w.Index, got, want.Exact)
				}
			}
			if s.Groups[0].Affinity.Intent != intent {
				t.Error("Run changed the spec")
			}
		})
	}
}
