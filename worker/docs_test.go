package worker

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/work-types.md anew")

const typesDoc = "../docs/work-types.md"

// TestWorkTypesDoc keeps docs/work-types.md what the table says.
func TestWorkTypesDoc(t *testing.T) {
	want := renderDoc()
	if *update {
		if err := os.WriteFile(typesDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(typesDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the table says; go test ./worker -run WorkTypesDoc -update", typesDoc)
	}
}

const docHead = `# Work types

Made from the table in package worker by ` + "`go test ./worker -run WorkTypesDoc -update`" + `; do not edit. ` + "`guestinit types`" + ` prints the same, and
` + "`guestinit types --json`" + ` for programs.

A work type is what every worker of a group does, over and over, until it is told to stop. ` + "`work`" + ` in a spec is a name, or a name with parameters:

` + "```yaml" + `
groups:
- {workers: 4, work: spin_wait}
- {workers: 8, work: {type: wake_chain, depth: 4, wake: futex, work_per_hop: 50us}}
` + "```" + `

Durations are written with a unit: 500us, 10ms, 2s. Where workers come in sets, the number of workers of a group is a multiple of the size of
a set, and the position in the set is the role. A latency that a type promises is in the report of every worker, with a count of 0 for a role
that has none. Every worker looks at least every 100 ms whether it is to stop.

A Go program that imports packages worker and spawn can add types of its own, which run outside the Go runtime like these: ` + "`worker.Register`" + `. The comment of package worker has
the rules for their loops, its example a whole one, and package worker/walktest proves from the machine code that a loop keeps the rules.
Programs in any language run as workers with [exec](#exec).
`

func renderDoc() string {
	var b strings.Builder
	b.WriteString(docHead)
	family := ""
	infos := make([]Info, len(Types))
	for i := range Types {
		infos[i] = Describe(&Types[i])
	}
	slices.SortStableFunc(infos, func(a, b Info) int { return strings.Compare(a.Family, b.Family) })
	for i := range infos {
		if infos[i].Family != family {
			family = infos[i].Family
			fmt.Fprintf(&b, "\n## %s\n", family)
		}
		renderType(&b, &infos[i])
	}
	return b.String()
}

func renderType(b *strings.Builder, t *Info) {
	fmt.Fprintf(b, "\n### %s\n\n%s.\n\n", t.Name, strings.ToUpper(t.Summary[:1])+t.Summary[1:])
	if t.GroupSize > 1 {
		varies := ""
		if t.Sized {
			varies = " by default; it follows from the parameters"
		}
		fmt.Fprintf(b, "- workers in sets of %d%s\n", t.GroupSize, varies)
	}
	if t.Resource != "" {
		fmt.Fprintf(b, "- given by the spawner: %s\n", t.Resource)
	}
	if len(t.Latencies) > 0 {
		fmt.Fprintf(b, "- latencies: %s%s\n", strings.Join(t.Latencies, ", "), rolesNote(t))
	}
	for _, mode := range slices.Sorted(maps.Keys(t.Refused)) {
		fmt.Fprintf(b, "- refused in mode %s: %s\n", mode, t.Refused[mode])
	}
	if len(t.Params) == 0 {
		b.WriteString("- no parameters\n")
		return
	}
	b.WriteString("\n| parameter | kind | default | accepts | |\n|-|-|-|-|-|\n")
	for i := range t.Params {
		p := &t.Params[i]
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", p.Name, p.Kind, p.Default, p.Accepts(), p.Summary)
	}
}

func rolesNote(t *Info) string {
	if !slices.Contains(t.Latencies, "wake_latency_ns") || len(t.WakeRoles) == t.GroupSize {
		return ""
	}
	if len(t.WakeRoles) == 0 {
		return " (none with the default parameters)"
	}
	words := make([]string, len(t.WakeRoles))
	for i, pos := range t.WakeRoles {
		words[i] = fmt.Sprint(pos)
	}
	return fmt.Sprintf(" (at default parameters by positions %s of a set of %d)", strings.Join(words, ", "), t.GroupSize)
}
