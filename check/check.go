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
		judged := judged{name: "group " + g.Name, asked: g.Workers, in: func(w *report.Worker) bool { return w.GroupIndex == i }}
		around := func(int) *spec.Checks { return s.Checks }
		judged.by = around
		if i < len(placed) {
			on := s.Thresholds(placed[i])
			around = func(step int) *spec.Checks { c, _ := on(step); return c }
			judged.by = func(step int) *spec.Checks {
				c, own := on(step)
				if own == nil && g.Cgroup != "" {
					return nil // it is judged with its cgroup
				}
				return c.Merge(own)
			}
			judged.spokenOf = func(step int) bool { return placed[i].Step == spec.BackdropStep && s.Steps[step].SpeaksOf(placed[i]) }
		}
		all = append(all, judged.scopes(r, s)...)
		at := placeOf(g)
		if g.Cgroup == "" || seen[at] {
			continue
		}
		seen[at] = true
		judged.name, judged.asked, judged.by = "cgroup "+g.Cgroup, 0, around
		if g.Step > 0 {
			judged.name += fmt.Sprintf(" of step %d", g.Step)
		}
		for j := range r.Groups {
			if placeOf(&r.Groups[j]) == at {
				judged.asked += r.Groups[j].Workers
			}
		}
		judged.in = func(w *report.Worker) bool { return placeOf(&r.Groups[w.GroupIndex]) == at }
		all = append(all, judged.scopes(r, s)...)
	}
	return all
}

// judged is workers, and by what they are judged when.
type judged struct {
	name     string
	asked    int // workers that should be there
	in       func(*report.Worker) bool
	by       func(step int) *spec.Checks // nil: not at all
	spokenOf func(step int) bool         // the step has thresholds for them alone
}

// scopes is the scope of the whole run and, for workers that live through several
// steps, of each step.
func (j *judged) scopes(r *report.Report, s *spec.Spec) (all []scope) {
	if checks := j.by(spec.WholeRun); checks != nil {
		whole := scope{name: j.name, checks: checks, asked: j.asked}
		for i := range r.Workers {
			if w := &r.Workers[i]; j.in(w) && w.WallNs > 0 {
				whole.members = append(whole.members, newMember(r, w, w.Slice(), nil))
			}
		}
		all = append(all, whole)
	}
	for _, epoch := range epochs(r) {
		step := int(epoch) - 1
		checks := j.by(step)
		if checks == nil {
			continue
		}
		part := scope{name: j.name + ", " + r.PhaseName(epoch), checks: checks, members: j.members(r, epoch)}
		lives := func(m member) bool { return r.Groups[m.w.GroupIndex].Step == 0 }
		switch part.asked = len(part.members); {
		case slices.ContainsFunc(part.members, lives):
		case part.asked == 0 && step < len(s.Steps) && j.spokenOf != nil && j.spokenOf(step):
			part.asked = j.asked // they were to be there
		default:
			continue
		}
		all = append(all, part)
	}
	return all
}

// members is the figures of a phase.
func (j *judged) members(r *report.Report, epoch uint32) (members []member) {
	for i := range r.Workers {
		w := &r.Workers[i]
		if !j.in(w) {
			continue
		}
		for k := range w.Phases {
			if f := &w.Phases[k]; f.Epoch == epoch {
				members = append(members, newMember(r, w, *f, &epoch))
			}
		}
	}
	return members
}

// epochs is the steps that were played, as the run or the slices of workers tell.
func epochs(r *report.Report) (all []uint32) {
	for i := range r.Phases {
		all = append(all, r.Phases[i].Epoch)
	}
	for i := range r.Run.Phases {
		if epoch := r.Run.Phases[i].Epoch; epoch != 0 && epoch != report.EpochBetween {
			all = append(all, epoch)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
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
