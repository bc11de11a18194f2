package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spec/schema"
	"github.com/guestinit/guestinit/worker"
)

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := schema.Build()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("spec.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("spec.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check is what the schema says of a spec in YAML or JSON.
func check(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// TestGoodSpecs has both validators accept the examples, the specs in the
// documents, and their canonical forms.
func TestGoodSpecs(t *testing.T) {
	s := compile(t)
	specs := map[string]string{}
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		specs[f] = string(b)
	}
	for _, f := range []string{"../../README.md", "../../docs/spec.md"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range regexp.MustCompile("(?ms)^```(?:yaml|json)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
			specs[fmt.Sprintf("%s, block %d", f, i)] = m[1]
		}
	}
	good := 0
	for name, text := range specs {
		parsed, err := scenario.Parse([]byte(text), name)
		if err != nil {
			continue // wrong on purpose, or other YAML; the tests of docs look after them
		}
		good++
		if err := check(t, s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		canonical, err := parsed.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := check(t, s, string(canonical)); err != nil {
			t.Errorf("%s, canonical: %v", name, err)
		}
	}
	if good < 12 {
		t.Errorf("%d good specs found", good)
	}
}

// TestEveryWorkType has both validators accept every type with its defaults
// spelt out.
func TestEveryWorkType(t *testing.T) {
	s := compile(t)
	for i := range worker.Types {
		typ := &worker.Types[i]
		work := map[string]any{"type": typ.Name}
		for j := range typ.Params {
			p := &typ.Params[j]
			switch p.Kind {
			case worker.Count:
				work[p.Name] = p.Default
			case worker.Bool:
				work[p.Name] = p.Default != 0
			case worker.Phases:
				work[p.Name] = []any{map[string]any{p.Values[0]: "1ms"}}
			case worker.Texts:
				work[p.Name] = []any{"true"}
			case worker.Pairs:
				work[p.Name] = map[string]any{"A": "b"}
			default:
				work[p.Name] = p.DefaultText()
			}
		}
		mode := "fork"
		if typ.RefuseFork != "" {
			mode = "thread"
		}
		b, err := json.Marshal(map[string]any{"version": 1, "clone_mode": mode, "groups": []any{map[string]any{"workers": worker.Describe(typ).GroupSize, "work": work}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := scenario.Parse(b, typ.Name); err != nil {
			t.Errorf("our validator: %v", err)
		}
		if err := check(t, s, string(b)); err != nil {
			t.Errorf("%s: %v", typ.Name, err)
		}
	}
}

// group is a spec of one group with further fields, work that of one type.
func group(fields string) string {
	return "version: 1\ngroups: [{workers: 1, work: spin_wait, " + fields + "}]"
}
func work(text string) string { return "version: 1\ngroups: [{workers: 4, work: " + text + "}]" }

// TestBadSpecs has both refuse what is wrong in form or out of range.
func TestBadSpecs(t *testing.T) {
	s := compile(t)
	for _, text := range []string{
		"groups: [{workers: 1, work: spin_wait}]",
		"version: 2\ngroups: [{workers: 1, work: spin_wait}]",
		"version: 1\nnmae: x\ngroups: [{workers: 1, work: spin_wait}]",
		"version: 1\nduration: 5\ngroups: [{workers: 1, work: spin_wait}]",
		"version: 1\nduration: soon\ngroups: [{workers: 1, work: spin_wait}]",
		"version: 1\nclone_mode: vfork\ngroups: [{workers: 1, work: spin_wait}]",
		"version: 1\nsamples: 1\ngroups: [{workers: 1, work: spin_wait}]",
		"version: 1\ngroups: {workers: 1, work: spin_wait}",
		"version: 1\ngroups: [{work: spin_wait}]",
		"version: 1\ngroups: [{workers: 1}]",
		"version: 1\ngroups: [{workers: one, work: spin_wait}]",
		group("name: 5"), group("wrokers: 2"), group("workers_pct: 50"), group("nice: low"), group("comm: sixteen-bytes-xx"),
		group("affinity: {}"), group("affinity: fast"), group("affinity: {exact: 0, intent: single_cpu}"), group("affinity: {intent: slow}"),
		group("sched: fiffo"), group("sched: {}"), group("sched: {policy: fifo, priority: high}"), group("sched: fifo"),
		group("mem_policy: bund"), group("mem_policy: bind"), group("mem_policy: {mode: bind, nodes: 0, flags: [sticky]}"),
		group("checks: {max_gap: 5}"), group("checks: {isolation: maybe}"), group("checks: {max_steal: 1}"), group("checks: {unsound_timing: ignore}"),
		work("spin_wiat"), work("{burst_duration: 1ms}"), work("exec"), work("{type: exec}"), work("{type: exec, argv: []}"), work("{type: exec, argv: [a, 5]}"),
		work("{type: exec, argv: a, env: {A=B: c}}"), work("{type: bursty, burst: 1ms}"), work("{type: bursty, burst_duration: 5}"),
		work("{type: wake_chain, depth: 1}"), work("{type: wake_chain, wake: bell}"), work("{type: idle_churn, precise_timing: 1}"),
		work("{type: sequence, phases: []}"), work("{type: sequence, phases: [{spin: 1ms, io: 1ms}]}"), work("{type: sequence, phases: [{run: 1ms}]}"),
		work("{type: numa_working_set_sweep, target_nodes: all}"), work("{type: cgroup_attach_storm, dest: 5}"),
		"version: 1\ncgroups: [{groups: [{workers: 1, work: spin_wait}]}]",
		"version: 1\ncgroups: [{name: a, cpu.weigth: 5, groups: [{workers: 1, work: spin_wait}]}]",
		"version: 1\ncgroups: [{name: a, cpuset: {llc: 0, numa: 0}, groups: [{workers: 1, work: spin_wait}]}]",
		"version: 1\ncgroups: [{name: a, cpu.idle: 2, groups: [{workers: 1, work: spin_wait}]}]",
		"version: 1\nsteps: [{groups: [{workers: 1, work: spin_wait}], hold: {}, ops: [{}]}]",
		"version: 1\nsteps: [{groups: [{workers: 1, work: spin_wait}], hold: forever}]",
		"version: 1\nsteps: [{groups: [{workers: 1, work: spin_wait}], hold: 1.5}]",
		"version: 1\nsteps: [{groups: [{workers: 1, work: spin_wait}], ops: [{explode: now}]}]",
	} {
		if _, err := scenario.Parse([]byte(text), "bad"); err == nil {
			t.Errorf("our validator accepts\n%s", text)
		}
		if err := check(t, s, text); err == nil {
			t.Errorf("the schema accepts\n%s", text)
		}
	}
	// What depends on several values is for our validator alone.
	for _, text := range []string{
		"version: 1\ngroups: [{workers: 3, work: pipe_io}]",
		"version: 1\ngroups: [{name: a, workers: 1, work: spin_wait}, {name: a, workers: 1, work: spin_wait}]",
		"version: 1\nduration: 10s\ndeadline: 5s\ngroups: [{workers: 1, work: spin_wait}]",
		group("sched: {policy: fifo}"), group("mem_policy: {mode: bind}"), group("affinity: {random_subset: {from: 0-1, count: 3}}"),
		work("{type: bursty, burst_duration: 48h}"),
	} {
		if _, err := scenario.Parse([]byte(text), "bad"); err == nil {
			t.Errorf("our validator accepts\n%s", text)
		}
		if err := check(t, s, text); err != nil {
			t.Errorf("the schema refuses what it cannot know:\n%s\n%v", text, err)
		}
	}
}

// TestRangesAgree compares both validators at and beyond the ends of ranges.
func TestRangesAgree(t *testing.T) {
	s := compile(t)
	for field, ends := range map[string][2]int64{
		"version: 1\ngroups: [{work: spin_wait, workers: %d}]": {1, 100_000},
		group("nice: %d"):      {-20, 19},
		group("uid: %d"):       {0, 1<<32 - 2},
		group("gid: %d"):       {0, 1<<32 - 2},
		group("numa_node: %d"): {0, 63},
		group("sched: {policy: fifo, priority: %d}"):                                                                                {1, 99},
		group("affinity: {random_subset: {from: 0-8191, count: %d}}"):                                                               {1, 8192},
		group("affinity: %d"):                                                                                                       {0, 8191},
		group("checks: {max_steal_pct: %d}"):                                                                                        {0, 100},
		group("checks: {max_off_cpu_spread_pct: %d}"):                                                                               {0, 100},
		group("checks: {min_page_locality: %d}"):                                                                                    {0, 1},
		"version: 1\ncgroups: [{name: a, cpu.weight: %d, groups: [{workers: 1, work: spin_wait}]}]":                                 {1, 10_000},
		"version: 1\ncgroups: [{name: a, io.weight: %d, groups: [{workers: 1, work: spin_wait}]}]":                                  {1, 10_000},
		"version: 1\ncgroups: [{name: a, cpuset: {numa: %d}, groups: [{workers: 1, work: spin_wait}]}]":                             {0, 63},
		"version: 1\ncgroups: [{name: a, cpuset: {llc: %d}, groups: [{workers: 1, work: spin_wait}]}]":                              {0, 8191},
		"version: 1\ncgroups: [{name: a, cpuset: {disjoint: {index: 0, of: %d}}, groups: [{workers: 1, work: spin_wait}]}]":         {1, 8192},
		"version: 1\ncgroups: [{name: a, cpuset: {overlap: {index: 0, of: 2, frac: %d}}, groups: [{workers: 1, work: spin_wait}]}]": {0, 1},
		work("{type: exec, argv: a, output_kib: %d}"):                                                                               {1, 1024},
		work("{type: rt_starvation, cfs_workers: 3, rt_priority: %d}"):                                                              {1, 99},
		work("{type: cache_pressure, size_kib: %d}"):                                                                                {1, 16 << 20},
	} {
		for _, c := range []struct {
			value int64
			good  bool
		}{{ends[0], true}, {ends[1], true}, {ends[0] - 1, false}, {ends[1] + 1, false}} {
			text := fmt.Sprintf(field, c.value)
			_, ours := scenario.Parse([]byte(text), "range")
			theirs := check(t, s, text)
			if (ours == nil) != c.good || (theirs == nil) != c.good {
				t.Errorf("%s\nwant good %v: ours says %v, the schema %v", text, c.good, ours, theirs)
			}
		}
	}
}

func ownLoop(s *worker.Slab) {
	for !s.Stopped() {
		s.Work(s.Params[0])
		s.Pass()
	}
}

// registerOwn adds a work type to those of the test, once for all its runs.
var registerOwn = sync.OnceValue(func() error {
	return worker.Register(worker.Type{Name: "own_type", Summary: "work",
		Params: []worker.Param{{Name: "units", Kind: worker.Count, Default: 10, Min: 1, Max: 99, Summary: "per pass"}}}, ownLoop)
})

// TestRegisteredTypes has a work type that the program registered in the schema,
// with the ranges of its parameters.
func TestRegisteredTypes(t *testing.T) {
	if err := registerOwn(); err != nil {
		t.Fatal(err)
	}
	s := compile(t)
	for text, good := range map[string]bool{
		"own_type": true, "{type: own_type, units: 1}": true, "{type: own_type, units: 99}": true,
		"own_typ": false, "{type: own_type, units: 0}": false, "{type: own_type, units: 100}": false, "{type: own_type, unit: 5}": false,
	} {
		_, ours := scenario.Parse([]byte(work(text)), "own")
		if theirs := check(t, s, work(text)); (theirs == nil) != good || (ours == nil) != good {
			t.Errorf("%s: want good %v: ours says %v, the schema %v", text, good, ours, theirs)
		}
	}
}
