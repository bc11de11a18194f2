package report

import (
	"fmt"
	"slices"
)

// Check is one threshold of the spec, held against the figures of one scope.
type Check struct {
	Name    string  `json:"name"`             // of the threshold, as in the spec
	Scope   string  `json:"scope"`            // "group pipes", "cgroup a/b", "group pipes, step 1"
	Outcome Verdict `json:"outcome"`          // any of the four
	Value   float64 `json:"value"`            // what was measured; 0 where nothing was
	Limit   float64 `json:"limit"`            // the threshold
	Unit    string  `json:"unit,omitempty"`   // of both: ns, percent, per_s, workers; "" for a ratio
	Reason  string  `json:"reason,omitempty"` // who missed it; why it could not be judged
}

// String is the check as one line for people.
func (c *Check) String() string {
	s := fmt.Sprintf("%s: %s: %s, limit %s", c.Scope, c.Name, c.figure(c.Value), c.figure(c.Limit))
	if c.Outcome == Inconclusive || c.Outcome == Skip {
		s = fmt.Sprintf("%s: %s: limit %s", c.Scope, c.Name, c.figure(c.Limit))
	}
	if c.Reason != "" {
		s += ": " + c.Reason
	}
	return s
}

// Figure is Value for people, with its unit.
func (c *Check) Figure() string { return c.figure(c.Value) }

func (c *Check) figure(v float64) string {
	switch c.Unit {
	case UnitNs:
		return formatNs(v)
	case UnitPercent:
		return fmt.Sprintf("%.3g%%", v)
	case UnitPerSecond:
		return formatCount(v) + "/s"
	case UnitWorkers:
		return Plural(int(v), "worker")
	}
	return fmt.Sprintf("%.4g", v)
}

// The units of checks.
const (
	UnitNs        = "ns"
	UnitPercent   = "percent"
	UnitPerSecond = "per_s"
	UnitWorkers   = "workers"
)

// judgeChecks is the worst of what the checks say: Fail, Inconclusive or Pass.
// Every check that failed has a line in Failures.
func (r *Report) judgeChecks() Verdict {
	verdict, lines := Pass, 0
	for i := range r.Checks {
		switch c := &r.Checks[i]; c.Outcome {
		case Fail:
			verdict = Fail
			if lines++; lines <= maxFailureLines {
				r.fail(c.String())
			}
		case Inconclusive:
			if verdict == Pass {
				verdict = Inconclusive
			}
		}
	}
	if lines > maxFailureLines {
		r.fail(fmt.Sprintf("%d more checks failed", lines-maxFailureLines))
	}
	return verdict
}

// checks writes a row per check: what was missed first, what passed last.
func (t *table) checks() {
	if len(t.r.Checks) == 0 {
		return
	}
	order := []Verdict{Fail, Inconclusive, Skip, Pass}
	all := slices.Clone(t.r.Checks)
	slices.SortStableFunc(all, func(a, b Check) int { return slices.Index(order, a.Outcome) - slices.Index(order, b.Outcome) })
	g := grid{left: 3}
	g.row("CHECK", "SCOPE", "OUTCOME", "VALUE", "LIMIT")
	for i := range all[:min(len(all), maxLines)] {
		c := &all[i]
		value := c.figure(c.Value)
		if c.Outcome == Skip || c.Outcome == Inconclusive && c.Value == 0 {
			value = "-"
		}
		g.row(c.Name, printable(c.Scope), string(c.Outcome), value, c.figure(c.Limit))
	}
	t.grid(g)
	if n := len(all) - maxLines; n > 0 {
		t.line(fmt.Sprintf("  %d more checks are in the JSON report", n))
	}
	var why []string
	for i := range all {
		if c := &all[i]; c.Outcome == Inconclusive {
			why = append(why, fmt.Sprintf("%s: %s: %s", c.Scope, c.Name, c.Reason))
		}
	}
	t.list("INCONCLUSIVE", why)
}
