package scenario

import (
	"fmt"
	"slices"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// notes sums up the set-up steps that failed softly: one line per group, step
// and error.
func notes(s *spec.Spec, workers []report.Worker) []string {
	type failure struct {
		group       int
		step, cause string
	}
	counts := make(map[failure]int)
	var order []failure
	for i := range workers {
		w := &workers[i]
		steps := make([]string, 0, len(w.SoftErrors))
		for step := range w.SoftErrors {
			steps = append(steps, step)
		}
		slices.Sort(steps)
		for _, step := range steps {
			f := failure{w.GroupIndex, step, w.SoftErrors[step]}
			if counts[f]++; counts[f] == 1 {
				order = append(order, f)
			}
		}
	}
	var lines []string
	for _, f := range order {
		g := &s.Groups[f.group]
		lines = append(lines, fmt.Sprintf("%s: %s not applied in %d of %d workers: %s", g.Name, f.step, counts[f], g.Workers, f.cause))
	}
	return lines
}
