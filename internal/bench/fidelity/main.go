// Command fidelity measures work types side by side with the tools that people
// know: cyclictest and hackbench of rt-tests, perf bench, stress-ng, and a C
// program of its own. The two sides take turns, round by round; the median of the
// rounds' ratios counts. docs/fidelity.md says what is compared and why.
//
// Usage: fidelity [-rounds N] [-time D] [-cpu N] [-noise] [COMPARISON...]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// bench is what all comparisons need.
type bench struct {
	rounds int
	span   time.Duration // of one side of a round
	cpu    int           // where pinned tasks run
	dir    string        // for what is compiled and written
	noise  bool          // the tools stand in for both sides
}

func main() {
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 9, "rounds of each comparison, six times as many for timers; the median of their ratios counts")
	flag.DurationVar(&b.span, "time", time.Second, "how long each side runs in a round, whole seconds")
	flag.IntVar(&b.cpu, "cpu", runtime.NumCPU()-1, "the CPU that pinned tasks run on")
	flag.BoolVar(&b.noise, "noise", false, "compare each tool with itself: what the ratios of equals are on this machine")
	flag.Parse()
	if err := b.main(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "fidelity:", err)
		os.Exit(1)
	}
}

func (b *bench) main(names []string) (err error) {
	b.span = max(b.span.Round(time.Second), time.Second)
	if b.dir, err = os.MkdirTemp("", "guestinit-fidelity"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	all := b.comparisons()
	known := make([]string, len(all))
	for i := range all {
		known[i] = all[i].name
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("no comparison %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	if b.noise {
		fmt.Println("each tool beside itself, in guestinit's column too")
	}
	fmt.Printf("%s\n%d rounds of %v a side, pinned to CPU %d of %d, load %s\n\n", versions(), b.rounds, b.span, b.cpu, runtime.NumCPU(), load())
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, tableHead)
	var missed []string
	begin := time.Now()
	for i := range all {
		if len(names) > 0 && !slices.Contains(names, all[i].name) {
			continue
		}
		if !b.compare(w, &all[i]) {
			missed = append(missed, all[i].name)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("\n%s\n%v, load at the end %s\n", trimLines(table.String()), time.Since(begin).Round(time.Second), load())
	if len(missed) > 0 {
		return fmt.Errorf("missed, or not measured: %s", strings.Join(missed, ", "))
	}
	return nil
}

// tableHead names the columns of the table. The ratio is the median of the rounds'.
const tableHead = "comparison\tfigure\tguestinit\ttool\tratio\thalf of the rounds\tall rounds\ttarget\t"

// compare measures one comparison, adds a row to the table for each of its
// figures, and says in a line how it came out. It returns whether all figures are
// within their targets.
func (b *bench) compare(w io.Writer, c *comparison) bool {
	results, err := b.measure(c)
	if err != nil {
		verdict := "failed"
		if errors.Is(err, errNotHere) {
			verdict = "left out"
		}
		fmt.Printf("%-14s %s: %v\n", c.name, verdict, err)
		fmt.Fprintf(w, "%s\t%s\t\t\t\t\t\t\t\n", c.name, verdict)
		return errors.Is(err, errNotHere)
	}
	for i, f := range c.figures {
		r := results[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f\t%.2f to %.2f\t%.2f to %.2f\t%s\t\n", c.name, f.name, f.text(median(r.ours)), f.text(median(r.theirs)),
			median(r.ratios), quantile(r.ratios, 0.25), quantile(r.ratios, 0.75), slices.Min(r.ratios), slices.Max(r.ratios), f.goal)
	}
	line, good := c.summary(results)
	fmt.Println(line)
	return good
}

// trimLines cuts the blanks off the ends of lines.
func trimLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// load is the machine's load averages.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
