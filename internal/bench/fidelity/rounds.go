package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// comparison is one work type beside one tool. The sides return a value for each
// figure or, where there is a sum, what it makes those of.
type comparison struct {
	name    string
	figures []figure
	ours    func() ([]float64, error)
	theirs  func() ([]float64, error)
	more    int // times as many rounds as others, for noisy figures; 0 is 1
	turns   int // of each side in a round; 0 is 1
	sum     func(all []float64) ([]float64, error)
}

// figure is one value that both sides measure.
type figure struct {
	name string // with its unit
	goal goal
}

func (f figure) text(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// goal bounds the median of the ratios of guestinit's value and the tool's.
type goal struct{ from, to float64 } // 0: no bound

func (g goal) holds(ratio float64) bool {
	return ratio >= g.from && (g.to == 0 || ratio <= g.to)
}

func (g goal) String() string {
	switch {
	case g.to > 0:
		return fmt.Sprintf("%.2f to %.2f", g.from, g.to)
	case g.from > 0:
		return fmt.Sprintf("%.2f or more", g.from)
	}
	return "none"
}

// errBusy is a round that says nothing, because the machine was busy with
// something else. errNotHere is a comparison that this machine cannot make.
var (
	errBusy    = errors.New("the machine is too busy")
	errNotHere = errors.New("it cannot be measured on this machine")
)

// result is the rounds of one figure.
type result struct{ ours, theirs, ratios []float64 }

// measure has both sides take turns, and who goes first changes from turn to turn
// and from round to round. A round that says nothing is made again, as many times as there are
// rounds.
func (b *bench) measure(c *comparison) ([]result, error) {
	if b.noise {
		c.ours = c.theirs
	}
	results := make([]result, len(c.figures))
	rounds := b.rounds * max(c.more, 1)
	again := rounds
	for done, turn := 0, 0; done < rounds; turn++ {
		ours, theirs, err := c.round(turn%2 == 1)
		if errors.Is(err, errBusy) && again > 0 {
			again--
			continue
		}
		if err != nil {
			return nil, err
		}
		done++
		for i := range results {
			r := &results[i]
			r.ours, r.theirs = append(r.ours, ours[i]), append(r.theirs, theirs[i])
			r.ratios = append(r.ratios, ours[i]/theirs[i])
		}
	}
	return results, nil
}

func (c *comparison) round(toolFirst bool) (ours, theirs []float64, err error) {
	for range max(c.turns, 1) {
		us, them, err := c.turn(toolFirst)
		if err != nil {
			return nil, nil, err
		}
		ours, theirs, toolFirst = append(ours, us...), append(theirs, them...), !toolFirst
	}
	if c.sum != nil {
		if ours, err = c.sum(ours); err == nil {
			theirs, err = c.sum(theirs)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if len(ours) != len(c.figures) || len(theirs) != len(c.figures) {
		return nil, nil, fmt.Errorf("%d and %d values of %d figures", len(ours), len(theirs), len(c.figures))
	}
	return ours, theirs, nil
}

func (c *comparison) turn(toolFirst bool) (ours, theirs []float64, err error) {
	if toolFirst {
		if theirs, err = c.theirs(); err == nil {
			ours, err = c.ours()
		}
		return ours, theirs, err
	}
	if ours, err = c.ours(); err == nil {
		theirs, err = c.theirs()
	}
	return ours, theirs, err
}

// summary says in one line whether a comparison is within its targets, and by what
// ratios; good is false if it is not.
func (c *comparison) summary(results []result) (line string, good bool) {
	verdict, good := "no target", true
	var words []string
	for i, f := range c.figures {
		ratio := median(results[i].ratios)
		word := fmt.Sprintf("%s %.2f", f.name, ratio)
		if f.goal != (goal{}) {
			word += fmt.Sprintf(" (%s)", f.goal)
			if verdict = "ok"; !f.goal.holds(ratio) {
				good = false
			}
		}
		words = append(words, word)
	}
	if !good {
		verdict = "outside the target"
	}
	return fmt.Sprintf("%-14s %s: %s", c.name, verdict, strings.Join(words, ", ")), good
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile is the value below which a part q of the values lies.
func quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(int(q*float64(len(v))), len(v)-1)]
}
