// Package check holds the thresholds of a spec against a report and so decides
// between pass, fail, inconclusive and skip. It runs where the report is read,
// not in the guest. It imports spec and report, and does no I/O.
package check

import (
	"fmt"
	"slices"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// GroupInfos is what a report says of the groups of a spec.
func GroupInfos(s *spec.Spec) []report.GroupInfo {
	placed := s.Placed()
	infos := make([]report.GroupInfo, len(placed))
	for i, g := range placed {
		name := g.Name
		if name == "" {
			name = fmt.Sprintf("g%d", i)
		}
		infos[i] = report.GroupInfo{Name: name, WorkType: g.Work.Type, Cgroup: g.Cgroup, Step: s.StepNumber(g.Step), Workers: g.Workers}
	}
	return infos
}

// Finish completes a report of the spec: aggregates, checks and verdict. It may
// be called again.
func Finish(r *report.Report, s *spec.Spec) {
	r.Aggregate(GroupInfos(s))
	r.Checks = Evaluate(r, s)
	r.Judge()
}

// Evaluate holds the thresholds of the spec against an aggregated report: a group
// with thresholds of its own by itself, a cgroup as one, and each in every step
// that its workers have slices of. The order is that of the groups. Of one
// threshold and scope there is one result.
func Evaluate(r *report.Report, s *spec.Spec) []report.Check {
	var all []report.Check
	for _, sc := range scopes(r, s) {
		e := evaluation{scope: sc, unsound: unsound(&r.Run, sc.checks)}
		e.run()
		all = append(all, e.results...)
	}
	return all
}

// scope is workers that are judged together.
type scope struct {
	name    string
	checks  *spec.Checks
	members []member
	asked   int // workers that should be there
}

// member is the figures of one worker, of the whole run or of one phase.
type member struct {
	w       *report.Worker
	fig     report.PhaseSlice
	allowed cpuSet // where it may run; nil if not known
	nodes   []int  // where its pages belong; nil if not known
}

// place is a cgroup of one step, or of all of them.
type place struct {
	cgroup string
	step   int
}

func placeOf(g *report.Group) place { return place{g.Cgroup, g.Step} }

// scopes lists who is judged, by which thresholds.
func scopes(r *report.Report, s *spec.Spec) []scope {
	var all []scope
	placed := s.Placed()
	seen := map[place]bool{}
	for i := range r.Groups {
		g := &r.Groups[i]
		around, own := s.Checks, (*spec.Checks)(nil)
		if i < len(placed) {
			around, own = s.ChecksAround(placed[i]), placed[i].Checks
		}
		if checks := around.Merge(own); checks != nil && (own != nil || g.Cgroup == "") {
			all = append(all, scopesOf(r, "group "+g.Name, checks, func(w *report.Worker) bool { return w.GroupIndex == i }, g.Workers)...)
		}
		at := placeOf(g)
		if g.Cgroup == "" || seen[at] || around == nil {
			continue
		}
		seen[at] = true
		name, asked := "cgroup "+g.Cgroup, 0
		if g.Step > 0 {
			name += fmt.Sprintf(" of step %d", g.Step)
		}
		for j := range r.Groups {
			if placeOf(&r.Groups[j]) == at {
				asked += r.Groups[j].Workers
			}
		}
		in := func(w *report.Worker) bool { return placeOf(&r.Groups[w.GroupIndex]) == at }
		all = append(all, scopesOf(r, name, around, in, asked)...)
	}
	return all
}

// scopesOf is the scope of the workers that are in, over the whole run and, if
// some live through several steps, in each of them.
func scopesOf(r *report.Report, name string, checks *spec.Checks, in func(*report.Worker) bool, asked int) []scope {
	whole := scope{name: name, checks: checks, asked: asked}
	for i := range r.Workers {
		w := &r.Workers[i]
		if in(w) && w.WallNs > 0 {
			whole.members = append(whole.members, newMember(r, w, w.Slice(), nil))
		}
	}
	all := []scope{whole}
	for i := range r.Phases {
		p := &r.Phases[i]
		part := scope{name: name + ", " + p.Name, checks: checks}
		for j := range r.Workers {
			w := &r.Workers[j]
			if !in(w) {
				continue
			}
			for k := range w.Phases {
				if f := &w.Phases[k]; f.Epoch == p.Epoch {
					part.members = append(part.members, newMember(r, w, *f, &p.Epoch))
				}
			}
		}
		lives := func(m member) bool { return r.Groups[m.w.GroupIndex].Step == 0 }
		if part.asked = len(part.members); slices.ContainsFunc(part.members, lives) {
			all = append(all, part)
		}
	}
	return all
}

// unsound says why times are not to be trusted, or is empty.
func unsound(run *report.Run, c *spec.Checks) string {
	if c.UnsoundTiming == spec.TimingEnforce {
		return ""
	}
	if len(run.Accelerator) >= 3 && run.Accelerator[:3] == "tcg" {
		return "timing under emulation (" + run.Accelerator + ")"
	}
	if run.Accelerator == report.AcceleratorUnknown {
		return "timing in a machine of which it is not known whether it is emulated"
	}
	limit := spec.DefaultMaxSteal
	if c.MaxSteal != nil {
		limit = *c.MaxSteal
	}
	if run.StealPct > limit {
		return fmt.Sprintf("timing while the host took %.3g%% of the CPU time, more than %.3g%%", run.StealPct, limit)
	}
	return ""
}
