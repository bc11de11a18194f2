package scenario

import (
	"slices"
	"testing"
)

// TestProgramsOfSpec: all that a spec starts, with the field that names it.
func TestProgramsOfSpec(t *testing.T) {
	s, err := Parse([]byte(`
version: 1
duration: 1s
scheduler: /opt/scx
backdrop:
  programs: [{path: /opt/beside}]
  ops: [{run_program: /opt/early}]
steps:
  - groups: [{workers: 1, work: {type: exec, argv: [tool, x]}}]
    ops: [{run_program: {name: a, path: /opt/late}}]
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	paths, programs := Programs(s)
	if want := []string{"/opt/scx", "/opt/beside", "/opt/early", "/opt/late", "tool"}; !slices.Equal(programs, want) {
		t.Errorf("programs %q", programs)
	}
	want := []string{"scheduler.path", "backdrop.programs[0].path", "backdrop.ops[0].run_program.path", "steps[0].ops[0].run_program.path", "steps[0].groups[0].work.argv[0]"}
	if !slices.Equal(paths, want) {
		t.Errorf("paths %q", paths)
	}
}
