package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Bounds of the table: what is beyond is counted, and JSON has it.
const (
	defaultWidth = 100
	minWidth     = 80
	maxStacks    = 4
	maxFrames    = 16
	maxPhases    = 16
	maxLines     = 40 // of failures and of notes each
)

// WriteTable writes r for people, width columns wide (0 means 100, at least 80):
// what it ran on, a row per group of throughput and scheduling, a row per group
// and kind of latency, failures with the stacks of crashed workers, the last
// lines that programs wrote, and notes.
// Text of the guest is escaped where a terminal would act on it.
func WriteTable(w io.Writer, r *Report, width int) error {
	if width == 0 {
		width = defaultWidth
	}
	t := table{w: bufio.NewWriter(w), r: r, width: max(width, minWidth)}
	t.header()
	t.groups("GROUP", t.r.Groups)
	t.latencies("GROUP", t.r.Groups)
	if len(t.r.Cgroups) > 0 {
		t.groups("CGROUP", t.r.Cgroups)
		t.latencies("CGROUP", t.r.Cgroups)
	}
	t.phases()
	t.checks()
	t.failures()
	t.schedulerFailure()
	t.outputs()
	t.list("NOTES", r.Notes)
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write report as table: %w", err)
	}
	return nil
}

type table struct {
	w     *bufio.Writer // keeps the first error until Flush
	r     *Report
	width int
}

func (t *table) line(s string) { t.w.WriteString(s + "\n") }

// labelled writes "  label   text", the text wrapped beside the label.
func (t *table) labelled(label, text string) {
	const indent = 11
	for i, l := range wrap(text, t.width-indent) {
		if i > 0 {
			label = ""
		}
		t.line(fmt.Sprintf("  %-*s%s", indent-2, label, l))
	}
}

func (t *table) header() {
	run := &t.r.Run
	verdict := cmp.Or(string(t.r.Verdict), "not judged")
	t.line(clip(fmt.Sprintf("%s: %s", printable(cmp.Or(run.Name, "workload")), strings.ToUpper(verdict)), t.width))
	// A run that broke off leaves fields empty: what is not known has no line.
	for _, l := range []struct{ label, text string }{
		{"kernel", kernel(run)}, {"machine", machine(run)}, {"boot", boot(run)}, {"run", duration(run)}, {"sched", scheduler(run.Scheduler)}, {"version", run.Version},
	} {
		if l.label == "version" && l.text != "" {
			l.text = "guestinit " + l.text
		}
		if l.text != "" {
			t.labelled(l.label, printable(l.text))
		}
	}
}

// listed joins what is known.
func listed(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// known is text, or nothing where is is false.
func known(is bool, format string, args ...any) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// kernel says which kernel ran on what.
func kernel(run *Run) string {
	return listed(strings.TrimSpace(run.KernelRelease+" "+run.Machine),
		known(run.CPUs > 0, "%s", Plural(run.CPUs, "CPU")),
		known(run.NUMANodes > 0, "%s", Plural(run.NUMANodes, "NUMA node")),
		known(run.Clocksource != "", "clocksource %s", run.Clocksource))
}

// AcceleratorUnknown is what a guest says of itself: it cannot see what runs it.
// A launcher at the other end of the link puts in what it knows.
const AcceleratorUnknown = "unknown"

// machine says what the kernel ran in.
func machine(run *Run) string {
	switch {
	case run.Accelerator == "none":
		return "this host, no VM"
	case run.Accelerator == AcceleratorUnknown && (run.Link == "" || run.Link == "none"):
		return "a VM, no host link"
	}
	return listed(
		known(run.QEMUVersion != "", "QEMU %s", run.QEMUVersion),
		known(run.QEMUVersion == "" && run.Accelerator != "", "VM"),
		known(run.Accelerator != "", "accelerator %s", run.Accelerator),
		known(run.Accelerator != "" || run.Link != "", "link %s", cmp.Or(run.Link, "none")),
		known(run.BootAttempts > 1, "boot attempt %d", run.BootAttempts))
}

// duration says how the workload ran, if it did.
func duration(run *Run) string {
	ran := run.DurationMs > 0
	return listed(known(ran, "%s", formatNs(run.DurationMs*1e6)),
		known(run.CloneMode != "", "%s workers", run.CloneMode),
		known(run.Spawner != "", "spawner %s", run.Spawner),
		known(ran, "start skew %s", formatNs(float64(run.StartSkewNs))),
		known(ran, "collected in %s", formatNs(run.CollectMs*1e6)))
}

// stageOrder is the order of the boot's stages: the points, on the host's clock
// and on the guest's, then the durations, both as they come. Sorted by size they
// would mix clocks.
func stageOrder(stage string) int {
	order := []string{"qemu_to_init", "qemu_to_hello", "init", "ready", "image", "mounts", "modules", "link", "spec"}
	if i := slices.Index(order, stage); i >= 0 {
		return i
	}
	return len(order)
}

// boot lists the stages of the boot.
func boot(run *Run) string {
	stages := slices.Collect(maps.Keys(run.BootMs))
	slices.SortFunc(stages, func(a, b string) int {
		return cmp.Or(cmp.Compare(stageOrder(a), stageOrder(b)), cmp.Compare(a, b))
	})
	more := ""
	if len(stages) > 12 {
		more = fmt.Sprintf(", %d more", len(stages)-12)
		stages = stages[:12]
	}
	for i, s := range stages {
		stages[i] = fmt.Sprintf("%s %s", s, formatNs(run.BootMs[s]*1e6))
	}
	return strings.Join(stages, ", ") + more
}

// groups writes the row per group of what ran and how it was scheduled.
func (t *table) groups(what string, groups []Group) {
	if len(groups) == 0 || len(t.r.Workers) == 0 {
		return // none reported: the failures say why
	}
	g := grid{left: 2, short: []string{what, "WORK", "DONE", "ITER/S", "ON CPU", "RUN DELAY", "PER RUN", "MIGR", "MAX GAP"}}
	g.row(what, "WORK", "DONE", "ITERATIONS/S", "ON CPU", "RUN DELAY", "PER RUN", "MIGRATIONS", "LONGEST GAP")
	for i := range groups {
		r := &groups[i]
		perRun := "-"
		if r.RunCount > 0 {
			perRun = formatNs(float64(r.RunDelayNs) / float64(r.RunCount))
		}
		done := formatCount(float64(r.Completed)) + "/" + formatCount(float64(r.Workers))
		if r.WallNs == 0 { // none of its workers came to its loop, or none reported
			g.row(printable(r.Name), printable(r.WorkType), done, "-", "-", "-", "-", "-", "-")
			continue
		}
		g.row(printable(r.Name), printable(r.WorkType), done,
			formatCount(r.IterationsPerS), formatShare(r.CPUNs, r.WallNs), formatNs(float64(r.RunDelayNs)), perRun,
			formatCount(float64(r.Migrations)), formatNs(float64(r.MaxGapNs)))
	}
	t.grid(g)
}

// latencies writes the row per group and kind of latency. The starred column is
// the one that schedulers are compared by.
func (t *table) latencies(what string, groups []Group) {
	g := grid{left: 2}
	g.row(what, "LATENCY", "COUNT", "MIN", "P50", "P90", "*P99", "P99.9", "MAX", "MEAN")
	for i := range groups {
		r := &groups[i]
		for j, kind := range [...]string{"wake", "cost", "timer"} {
			l := r.latencies()[j].lat
			if l == nil {
				continue
			}
			g.row(printable(r.Name), kind, formatCount(float64(l.Count)),
				formatNs(float64(l.Min)), formatNs(float64(l.P50)), formatNs(float64(l.P90)), formatNs(float64(l.P99)),
				formatNs(float64(l.P999)), formatNs(float64(l.Max)), formatNs(l.Mean))
		}
	}
	if len(g.rows) > 1 {
		t.grid(g)
	}
}

// phases writes a table per phase, for at most maxPhases of them. Where each group
// had one step only, the table of all groups has said it.
func (t *table) phases() {
	if !slices.ContainsFunc(t.r.Workers, func(w Worker) bool { return len(w.Phases) > 0 }) {
		return
	}
	for i := range t.r.Phases[:min(len(t.r.Phases), maxPhases)] {
		p := &t.r.Phases[i]
		t.line("")
		t.line(clip(strings.ToUpper(printable(p.Name)), t.width))
		t.groups("GROUP", p.Groups)
		t.latencies("GROUP", p.Groups)
	}
	if n := len(t.r.Phases) - maxPhases; n > 0 {
		t.line(fmt.Sprintf("  %d more phases are in the JSON report", n))
	}
}

func (t *table) grid(g grid) {
	t.line("")
	for _, l := range g.lines(t.width) {
		t.line(l)
	}
}

// failures writes why the run failed, and where its crashed workers were.
func (t *table) failures() {
	t.list("FAILURES", t.r.Failures)
	stacks := 0
	for i := range t.r.Workers {
		w := &t.r.Workers[i]
		if w.ExitInfo == nil || len(w.ExitInfo.Stack) == 0 {
			continue
		}
		if stacks++; stacks > maxStacks {
			continue
		}
		t.line(clip(fmt.Sprintf("  stack of %s:", printable(t.r.WorkerName(w))), t.width))
		for j, f := range w.ExitInfo.Stack {
			if j == maxFrames {
				t.line(fmt.Sprintf("      ... %d more frames", len(w.ExitInfo.Stack)-j))
				break
			}
			t.line("      " + clip(printable(f), t.width-6))
		}
	}
	if stacks > maxStacks {
		t.line(fmt.Sprintf("  %d more stacks are in the JSON report", stacks-maxStacks))
	}
}

// list writes a heading and its lines, if there are any.
func (t *table) list(heading string, lines []string) {
	if len(lines) == 0 {
		return
	}
	t.line("")
	t.line(heading)
	for i, l := range lines {
		if i == maxLines {
			t.line(fmt.Sprintf("  - %d more are in the JSON report", len(lines)-i))
			break
		}
		mark := "  - "
		for _, part := range wrap(printable(l), t.width-len(mark)) {
			t.line(mark + part)
			mark = "    "
		}
	}
}

// Plural is a number of things as a person writes it: "1 worker", "2 workers".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
