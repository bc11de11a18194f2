package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseCyclictest(t *testing.T) {
	const head = `{"resolution_in_ns": %d, "thread": {"0": {"histogram": {%s}, "cycles": %d, "min": 900}}}`
	var hundred []string
	for i := range 100 { // out of order, and 9000 before 10000
		hundred = append(hundred, fmt.Sprintf(`"%d": 1`, 1000*((i*37)%100+1)))
	}
	for _, tt := range []struct {
		name, text string
		want       []float64
		err        error
	}{
		{"hundred", fmt.Sprintf(head, 1, strings.Join(hundred, ","), 100), []float64{50, 99}, nil},
		{"one", fmt.Sprintf(head, 1, `"2500": 1`, 1), []float64{2.5, 2.5}, nil},
		{"a tail beyond the histogram", fmt.Sprintf(head, 1, `"2500": 995`, 1000), []float64{2.5, 2.5}, nil},
		{"p99 beyond the histogram", fmt.Sprintf(head, 1, `"2500": 900`, 1000), nil, errBusy},
	} {
		got, err := parseCyclictest([]byte(tt.text))
		if err == nil {
			got, err = percentilesOf(got)
		}
		if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
	for _, bad := range []string{"", "{}", fmt.Sprintf(head, 0, `"3": 1`, 1), fmt.Sprintf(head, 1, `"x": 1`, 1), fmt.Sprintf(head, 1, `"3": 2`, 1)} {
		if got, err := parseCyclictest([]byte(bad)); err == nil || errors.Is(err, errBusy) {
			t.Errorf("%q gives %v, %v", bad, got, err)
		}
	}
}

func TestFind(t *testing.T) {
	for _, tt := range []struct {
		out, pattern string
		want         float64
	}{
		{"     Total time: 3.611 [sec]\n\n      36.113550 usecs/op\n          27690 ops/sec\n", opsPattern, 27690},
		{"stress-ng: metrc: [31252] fault             37085.01 minor page faults per sec (geometic mean of 1 instances)\n", faultsPattern, 37085.01},
		{"Each sender will pass 100000 messages of 100 bytes\nTime: 0.038\n", timePattern, 0.038},
		{"no such thing", opsPattern, 0},
		{"0 ops/sec", opsPattern, 0},
	} {
		got, err := find([]byte(tt.out), tt.pattern)
		if tt.want == 0 && err == nil || tt.want != 0 && (err != nil || got[0] != tt.want) {
			t.Errorf("%q: %v, %v", tt.out, got, err)
		}
	}
}

func TestNearestRank(t *testing.T) {
	values := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for p, want := range map[float64]float64{0.5: 5, 0.99: 10, 0.1: 1, 0.11: 2, 1: 10} {
		if got := nearestRank(values, p); got != want {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
	if got := nearestRank(nil, 0.5); got != 0 {
		t.Errorf("nothing gives %v", got)
	}
}

// TestRounds has the sides take turns, makes rounds again that say nothing, and
// gives up when too many do.
func TestRounds(t *testing.T) {
	order, busy := "", 1
	c := comparison{
		figures: []figure{{name: "n"}},
		ours:    func() ([]float64, error) { order += "o"; return []float64{3}, nil },
		theirs: func() ([]float64, error) {
			if busy--; busy >= 0 {
				return nil, errBusy
			}
			order += "t"
			return []float64{2}, nil
		},
	}
	b := &bench{rounds: 3}
	results, err := b.measure(&c)
	if err != nil || !slices.Equal(results[0].ratios, []float64{1.5, 1.5, 1.5}) {
		t.Errorf("%+v, %v, in the order %s", results, err, order)
	}
	if want := "o" + "to" + "ot" + "to"; order != want {
		t.Errorf("the order is %s, want %s", order, want)
	}
	order, c.turns = "", 3
	c.sum = func(all []float64) ([]float64, error) { return []float64{float64(len(all)) * all[2]}, nil }
	if results, err = b.measure(&c); err != nil || !slices.Equal(results[0].ours, []float64{9, 9, 9}) || !slices.Equal(results[0].theirs, []float64{6, 6, 6}) {
		t.Errorf("%+v, %v, in turns", results, err)
	}
	if want := "ottoot" + "tootto" + "ottoot"; order != want {
		t.Errorf("the order of turns is %s, want %s", order, want)
	}
	busy = 100
	if _, err := b.measure(&c); !errors.Is(err, errBusy) {
		t.Errorf("a machine that is always busy gives %v", err)
	}
}

func TestGoals(t *testing.T) {
	for _, tt := range []struct {
		goal  goal
		ratio float64
		want  bool
	}{
		{withinATenth, 0.89, false}, {withinATenth, 0.9, true}, {withinATenth, 1.1, true}, {withinATenth, 1.11, false},
		{aTwentieth, 0.94, false}, {aTwentieth, 0.95, true}, {aTwentieth, 7, true}, {goal{}, 0.1, true},
	} {
		if got := tt.goal.holds(tt.ratio); got != tt.want {
			t.Errorf("%v of %v: %v", tt.ratio, tt.goal, got)
		}
	}
}

// TestSummary says of comparisons whether they are within their targets.
func TestSummary(t *testing.T) {
	two := comparison{name: "timer", figures: []figure{{"p50 us", withinATenth}, {"p99 us", withinATenth}}}
	for _, tt := range []struct {
		p50, p99 []float64
		want     string
	}{
		{[]float64{5, 1, 0.2}, []float64{0.9, 1.1, 1.2}, "timer          ok: p50 us 1.00 (0.90 to 1.10), p99 us 1.10 (0.90 to 1.10)"},
		{[]float64{1}, []float64{1.2}, "timer          outside the target: p50 us 1.00 (0.90 to 1.10), p99 us 1.20 (0.90 to 1.10)"},
		{[]float64{0.5}, []float64{1}, "timer          outside the target: p50 us 0.50 (0.90 to 1.10), p99 us 1.00 (0.90 to 1.10)"},
	} {
		line, good := two.summary([]result{{ratios: tt.p50}, {ratios: tt.p99}})
		if line != tt.want || good != strings.Contains(tt.want, " ok: ") {
			t.Errorf("%q, %v, want %q", line, good, tt.want)
		}
	}
	free := comparison{name: "x", figures: []figure{{name: "n"}}}
	if line, good := free.summary([]result{{ratios: []float64{0.1}}}); line != "x              no target: n 0.10" || !good {
		t.Errorf("%q, %v", line, good)
	}
	if q := []float64{quantile([]float64{4, 1, 3, 2}, 0.25), quantile([]float64{4, 1, 3, 2}, 0.75), quantile([]float64{7}, 0.75)}; !slices.Equal(q, []float64{2, 4, 7}) {
		t.Errorf("the quartiles are %v", q)
	}
}

// TestTableOfTheDoc holds the figures in docs/fidelity.md against what is compared:
// its blocks are what the command prints.
func TestTableOfTheDoc(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/fidelity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, figures, _ := strings.Cut(string(doc), "\n## Figures\n")
	_, block, _ := strings.Cut(figures, "```text\n")
	block, _, ok := strings.Cut(block, "```\n")
	if !ok {
		t.Fatal("no block of figures")
	}
	blanks := regexp.MustCompile(` {2,}`)
	rows := map[string]string{} // comparison and figure → target
	for line := range strings.Lines(block) {
		f := blanks.Split(strings.TrimSpace(line), -1)
		if len(f) == strings.Count(tableHead, "\t") {
			rows[f[0]+" "+f[1]] = f[len(f)-1]
		}
	}
	for _, c := range (&bench{}).comparisons() {
		for _, f := range c.figures {
			if got := rows[c.name+" "+f.name]; got != f.goal.String() {
				t.Errorf("%s, %s: the document says the target is %q, want %q", c.name, f.name, got, f.goal)
			}
		}
		if !strings.Contains(string(doc), "`"+c.name+"`") {
			t.Errorf("the document does not say what %s compares", c.name)
		}
	}
}
