package scenario

import (
	"fmt"
	"maps"
	"slices"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// steps names the set-up step whose soft error explains a setting.
var steps = []struct{ setting, step string }{
	{"policy", "sched_policy"}, {"nice", "nice"}, {"affinity", "affinity"}, {"affinity", "numa_node"},
	{"mem_policy", "mem_policy"}, {"comm", "comm"}, {"uid", "uid"}, {"gid", "gid"},
}

// notes sums up what workers asked for and did not get: one line per group, step
// and cause.
func notes(groups []spec.Group, workers []report.Worker) []string {
	type failure struct {
		group int
		what  string
	}
	counts := make(map[failure]int)
	var order []failure
	for i := range workers {
		for _, what := range shortfalls(&workers[i]) {
			f := failure{workers[i].GroupIndex, what}
			if counts[f]++; counts[f] == 1 {
				order = append(order, f)
			}
		}
	}
	var lines []string
	for _, f := range order {
		g := &groups[f.group]
		lines = append(lines, fmt.Sprintf("%s: %s (%d of %d workers)", g.Name, f.what, counts[f], g.Workers))
	}
	return lines
}

// shortfalls lists what one worker asked for and did not get.
func shortfalls(w *report.Worker) []string {
	var lines []string
	for _, step := range slices.Sorted(maps.Keys(w.SoftErrors)) {
		lines = append(lines, fmt.Sprintf("%s not applied: %s", step, w.SoftErrors[step]))
	}
	for _, name := range slices.Sorted(maps.Keys(w.Settings)) {
		v := w.Settings[name]
		explained := slices.ContainsFunc(steps, func(s struct{ setting, step string }) bool {
			return s.setting == name && w.SoftErrors[s.step] != ""
		})
		if v.Asked != "" && v.Asked != v.Got && !explained {
			lines = append(lines, fmt.Sprintf("%s: asked for %s, got %s", name, v.Asked, v.Got))
		}
	}
	return lines
}
