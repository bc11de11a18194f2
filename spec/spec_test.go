package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	data := `
version: 1
name: everything
duration: 1m30s
deadline: 2m
clone_mode: thread
groups:
  - name: a
    workers: 0x10
    work: spin_wait
    affinity: 0-3,8
    sched: batch
    mem_policy: local
  - workers: 4
    work:
      type: bursty
      burst_duration: 10ms
      count: 3
      big: 18446744073709551615
      ratio: 1.0
      on: true
      nested: {list: [1, -2.5, x]}
    affinity: {random_subset: {from: "0-31:1/2", count: 2}}
    sched: {policy: deadline, runtime: 1ms, deadline: 5ms, period: 10ms}
    mem_policy: {mode: bind, nodes: [0, 2, 1], flags: [static_nodes, numa_balancing]}
    nice: 0
    comm: burst
    uid: 1000
    gid: 0
    numa_node: 1
  - {workers: 1, work: spin_wait, affinity: 5, sched: {policy: fifo, priority: 99}, mem_policy: {mode: preferred, nodes: 3, flags: relative_nodes}}
  - {workers: 1, work: spin_wait, affinity: inherit}
`
	got, err := Parse([]byte(data), "x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	even := CPUList{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}
	want := &Spec{
		Version: 1, Name: "everything", Duration: Duration(90 * time.Second), Deadline: Duration(2 * time.Minute), CloneMode: Thread,
		Groups: []Group{
			{Name: "a", Workers: 16, Work: Work{Type: "spin_wait"}, Affinity: &Affinity{Exact: CPUList{0, 1, 2, 3, 8}},
				Sched: &Sched{Policy: SchedBatch}, MemPolicy: &MemPolicy{Mode: MemLocal}},
			{Name: "g1", Workers: 4, Work: Work{Type: "bursty", Params: map[string]any{
				"burst_duration": "10ms", "count": int64(3), "big": uint64(1<<64 - 1), "ratio": 1.0, "on": true,
				"nested": map[string]any{"list": []any{int64(1), -2.5, "x"}},
			}},
				Affinity:  &Affinity{RandomSubset: &RandomSubset{From: even, Count: 2}},
				Sched:     &Sched{Policy: SchedDeadline, Runtime: Duration(time.Millisecond), Deadline: Duration(5 * time.Millisecond), Period: Duration(10 * time.Millisecond)},
				MemPolicy: &MemPolicy{Mode: MemBind, Nodes: CPUList{0, 1, 2}, Flags: []string{MemStaticNodes, MemNUMABalancing}},
				Nice:      ptr(0), Comm: "burst", UID: ptr(uint32(1000)), GID: ptr(uint32(0)), NUMANode: ptr(1)},
			{Name: "g2", Workers: 1, Work: Work{Type: "spin_wait"}, Affinity: &Affinity{Exact: CPUList{5}},
				Sched: &Sched{Policy: SchedFIFO, Priority: 99}, MemPolicy: &MemPolicy{Mode: MemPreferred, Nodes: CPUList{3}, Flags: []string{MemRelativeNodes}}},
			{Name: "g3", Workers: 1, Work: Work{Type: "spin_wait"}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := got.JSON()
		w, _ := want.JSON()
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	checkRoundTrip(t, got)
}

// checkRoundTrip: the canonical JSON is read back as the same spec, by all three
// readers, and is its own canonical form.
func checkRoundTrip(t *testing.T, s *Spec) {
	t.Helper()
	text, err := s.JSON()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseJSON(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !reflect.DeepEqual(back, s) {
		t.Errorf("read back as %+v, was %+v\n%s", back, s, text)
	}
	again, err := back.JSON()
	if err != nil || !bytes.Equal(again, text) {
		t.Errorf("canonical form of\n%s\nis\n%s, %v", text, again, err)
	}
	var std Spec
	if err := json.Unmarshal(text, &std); err != nil || !reflect.DeepEqual(&std, s) {
		t.Errorf("json.Unmarshal: %+v, %v", std, err)
	}
	if s2, err := Parse(text, "x"); err != nil || !reflect.DeepEqual(s2, s) {
		t.Errorf("Parse of the JSON: %+v, %v", s2, err)
	}
}

func TestDefaults(t *testing.T) {
	for name, data := range map[string]string{
		"YAML":             "version: 1\ngroups: [{workers: 1, work: spin_wait}]",
		"byte order mark":  "\ufeffversion: 1\ngroups: [{workers: 1, work: {type: spin_wait}}]",
		"empty document":   "---\nversion: 1\ngroups: [{workers: 1, work: spin_wait}]\n...\n",
		"flow style":       "{version: 1, groups: [{workers: 1, work: spin_wait}]}",
		"JSON":             `{"version":1,"groups":[{"workers":1,"work":"spin_wait"}]}`,
		"JSON with spaces": " \n{ \"version\" : 1, \"groups\": [{\"workers\": 1, \"work\": {\"type\": \"spin_wait\"}}]}\n",
	} {
		s, err := Parse([]byte(data), "x")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := &Spec{Version: 1, Name: "workload", Duration: Duration(5 * time.Second), Deadline: Duration(35 * time.Second), CloneMode: Fork,
			Groups: []Group{{Name: "g0", Workers: 1, Work: Work{Type: "spin_wait"}}}}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestAliases(t *testing.T) {
	s, err := Parse([]byte(`
version: 1
groups:
  - &base {name: a, workers: 2, work: &w {type: bursty, burst_duration: 1ms}, nice: 3}
  - {<<: *base, name: b, work: *w}
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := s.Groups[0], s.Groups[1]; b.Name != "b" || b.Workers != 2 || *b.Nice != 3 || !reflect.DeepEqual(a.Work, b.Work) {
		t.Errorf("%+v", s.Groups)
	}
}

// Every testdata/bad file is refused with the errors in the .err file beside it.
func TestParseErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*[nl]") // .yaml and .json
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(data, filepath.Base(file))
			if err == nil {
				t.Fatal("accepted")
			}
			got := err.Error() + "\n"
			golden := file + ".err"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v; write it with go test ./spec -update", err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	data := "version: 1\ngroups:\n" + strings.Repeat("- {wrokers: 1, work: spin_wait}\n", 100)
	_, err := Parse([]byte(data), "x")
	var first *Error
	if !errors.As(err, &first) || first.Line != 3 || first.Path != "groups[0].wrokers" {
		t.Fatalf("first error %+v of %v", first, err)
	}
	if n := strings.Count(err.Error(), "\n"); n != maxErrors || !strings.HasSuffix(err.Error(), "more errors") {
		t.Errorf("%d lines: %v", n+1, err)
	}
}

// What a hostile file can do is bounded before a parser sees it.
func TestHostile(t *testing.T) {
	deepAlias := "a0: &a0 [x,x]\n"
	for i := 1; i < 60; i++ {
		deepAlias += strings.ReplaceAll("aN: &aN [*aP,*aP]\n", "aN", "a"+string(rune('A'+i)))
	}
	laughs := "version: 1\ngroups:\n- workers: 1\n  work:\n    type: x\n    p0: &p0 [1,1,1,1,1,1,1,1,1,1]\n"
	for i := 1; i < 10; i++ {
		p, q := string(rune('0'+i-1)), string(rune('0'+i))
		laughs += "    p" + q + ": &p" + q + " [" + strings.Repeat("*p"+p+",", 9) + "*p" + p + "]\n"
	}
	for name, data := range map[string]string{
		"brackets":      strings.Repeat("[", 1<<20),
		"braces":        strings.Repeat("{a: ", 1<<20),
		"json brackets": `{"a":` + strings.Repeat("[", 1<<20),
		"dashes":        strings.Repeat("- ", 1<<20),
		"questions":     strings.Repeat("? ", 1<<20),
		"tags":          strings.Repeat("!a ", 1<<18),
		"laughs":        laughs,
		"deep alias":    deepAlias,
		"large YAML":    "#" + strings.Repeat(" ", MaxYAMLSize),
		"large JSON":    "{}" + strings.Repeat(" ", MaxSize),
		"many keys":     `{"version":1` + strings.Repeat(`,"k":1`, 2000) + "}",
		"not UTF-8":     "version: 1\nname: \xff",
		"NUL":           "version: \x00",
		"self alias":    "a: &a [*a]",
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse([]byte(data), "x")
			if err == nil || s != nil {
				t.Fatalf("accepted: %+v", s)
			}
			if len(err.Error()) > 8<<10 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

// Validate is for specs that a program made.
func TestValidate(t *testing.T) {
	good := func() *Spec {
		s := &Spec{Version: 1, Groups: []Group{{Workers: 2, Work: Work{Type: "x"}}}}
		s.SetDefaults()
		return s
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		edit func(*Spec)
		want string
	}{
		{func(s *Spec) { s.Version = 2 }, "spec: version: 2 is not known; this guestinit reads version 1"},
		{func(s *Spec) { s.Duration = 1 }, "spec: duration: 1ns is out of range; 1ms to 24h0m0s"},
		{func(s *Spec) { s.Deadline = s.Duration - 1 }, "spec: deadline: 4.999999999s is out of range; from the duration, 5s, to 25h0m0s"},
		{func(s *Spec) { s.CloneMode = "threads" }, `spec: clone_mode: unknown "threads"; did you mean thread?`},
		{func(s *Spec) { s.Groups = nil }, "spec: groups: has 0 groups; 1 to 1024"},
		{func(s *Spec) { s.Groups = make([]Group, 1025) }, "spec: groups: has 1025 groups; 1 to 1024"},
		{func(s *Spec) { s.Groups[0].Workers = -1 }, "spec: groups[0].workers: -1 is out of range; 1 to 100000"},
		{func(s *Spec) { s.Groups[0].Nice = ptr(20) }, "spec: groups[0].nice: 20 is out of range; -20 to 19"},
		{func(s *Spec) { s.Groups[0].NUMANode = ptr(-1) }, "spec: groups[0].numa_node: -1 is out of range; 0 to 63"},
		{func(s *Spec) { s.Groups[0].Comm = "sixteen bytes!!!" }, `spec: groups[0].comm: "sixteen bytes!!!" is no task name; 1 to 15 bytes without NUL`},
		{func(s *Spec) { s.Groups[0].Name = "a\nb" }, `spec: groups[0].name: "a\nb" is no name; 1 to 64 bytes of printable text`},
		{func(s *Spec) { s.Groups[0].Affinity = &Affinity{} }, "spec: groups[0].affinity.exact: empty CPU set; use inherit for no affinity"},
		{func(s *Spec) { s.Groups[0].Affinity = &Affinity{Exact: CPUList{2, 1}} }, "spec: groups[0].affinity: CPU 1 is out of order; ascending, none twice"},
		{func(s *Spec) {
			s.Groups[0].Affinity = &Affinity{Exact: CPUList{2}, RandomSubset: &RandomSubset{CPUList{1}, 1}}
		},
			"spec: groups[0].affinity: has both exact and random_subset; keep one"},
		{func(s *Spec) { s.Groups[0].Sched = &Sched{} }, "spec: groups[0].sched.policy: is missing; one of normal, batch, idle, fifo, round_robin, deadline, ext"},
		{func(s *Spec) { s.Groups[0].MemPolicy = &MemPolicy{Mode: MemBind, Nodes: CPUList{2000}} }, "spec: groups[0].mem_policy.nodes: 2000 is out of range; 0 to 63"},
	} {
		s := good()
		tt.edit(s)
		if err := s.Validate(); err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
	many := good()
	many.Groups = nil
	for range 11 {
		many.Groups = append(many.Groups, Group{Workers: MaxGroupWorkers, Work: Work{Type: "x"}})
	}
	many.SetDefaults()
	if err := many.Validate(); err == nil || !strings.Contains(err.Error(), "1100000 workers together") {
		t.Errorf("%v", err)
	}
}

func TestQuickstart(t *testing.T) {
	example, err := os.ReadFile("../examples/quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(example, Quickstart()) {
		t.Error("spec/quickstart.yaml differs from examples/quickstart.yaml; copy one over the other")
	}
	s, err := Parse(Quickstart(), "quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, s)
	text, _ := s.JSON()
	if len(text) > 1024 {
		t.Errorf("%d bytes of JSON are much for a kernel command line", len(text))
	}
}

func TestCPUList(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " ": "", "0": "0", "0-3,8": "0-3,8", "8, 0-3": "0-3,8", "1,2,3": "1-3", "0-31:2/8": "0-1,8-9,16-17,24-25", "8191": "8191", "3-3": "3", "0-1:1/1": "0-1",
	} {
		l, err := ParseCPUList(in)
		if err != nil || l.String() != want {
			t.Errorf("%q: %q, %v", in, l, err)
		}
		if back, err := ParseCPUList(l.String()); err != nil || !reflect.DeepEqual(back, l) {
			t.Errorf("%q: read back as %v, %v", in, back, err)
		}
	}
	for _, bad := range []string{"x", ",", "1,", "-1", "1-", "3-1", "8192", "0-99999999999", "0-3:0/2", "0-3:3/2", "0-3:1", "3:1/2", "1 2", "0x1"} {
		if l, err := ParseCPUList(bad); err == nil {
			t.Errorf("%q is read as %v", bad, l)
		}
	}
	if l := (CPUList{1, 5}); !l.Contains(5) || l.Contains(2) {
		t.Error("Contains")
	}
}

func TestNearest(t *testing.T) {
	names := []string{"spin_wait", "yield_heavy", "bursty", "pipe_io", "futex_ping_pong", "timer_latency", "mutex_contention"}
	for in, want := range map[string]string{
		"spinwait": "spin_wait", "FutexPingPong": "futex_ping_pong", "futex-ping-png": "futex_ping_pong", "brusty": "bursty", "pipeio": "pipe_io",
		"timer_latencies": "timer_latency", "": "", "x": "", "network": "", strings.Repeat("spin_wait", 20): "",
	} {
		if got := Nearest(in, names); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestShapes has documents of odd proportions: each is read or refused in the time
// that its size takes, by what is wrong with it.
func TestShapes(t *testing.T) {
	const head = "version: 1\nduration: 1s\ngroups: "
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for _, tt := range []struct{ name, text, want string }{
		{"groups on one line", head + "[" + many(400, "{name: g%d, workers: 1, work: x},") + "]\n", ""},
		{"groups on a line each", head + "\n" + many(400, "- {name: g%d, workers: 1, work: x}\n"), ""},
		{"deep on one line", head + strings.Repeat("- ", 100000), "f:3:1: nests deeper than 64 levels"},
		{"deep between brackets", head + "[" + strings.Repeat("? ", 100000), "f:3:1: nests deeper than 64 levels"},
		{"keys", head + "[]\n" + many(200000, "k%d: 1\n"), "f:8192:1: has too many keys; an object has at most 1000"},
		{"keys of an inner object", head + "\n- x:\n" + many(200000, "    k%d: 1\r\n"), "has too many keys"},
		{"keys in braces", head + "{\n" + many(200000, " k%d: 1,\n") + "}", "has too many keys"},
		{"objects of many keys", head + "\n" + many(1000, "- n: %d\n"+many(400, "  k%[1]d: 1\n")), "has too many keys"},
		{"documents", strings.Repeat("---\nversion: 1\n", 200000), "f:129:1: document 65; a spec is one document"},
	} {
		_, err := Parse([]byte(tt.text), "f")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %.200v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Quickstart())
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/bad/*.json", "testdata/good/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(`{"version":1,"groups":[{"workers":1,"work":{"type":"x","a":1e5,"b":[true,{"c":-0.0}]},"affinity":"0-3"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		if s, err := ParseJSON(data); err == nil {
			checkRoundTrip(t, s)
		}
		s, err := Parse(data, "fuzz")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("no *Error: %v", err)
			}
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("parsed and not valid: %v", err)
		}
		checkRoundTrip(t, s)
	})
}

func FuzzCPUList(f *testing.F) {
	for _, s := range []string{"0-3,8", "0-31:2/8", "8191", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseCPUList(s)
		if err != nil {
			return
		}
		if back, err := ParseCPUList(l.String()); err != nil || !reflect.DeepEqual(back, l) {
			t.Fatalf("%q: %v, read back as %v, %v", s, l, back, err)
		}
	})
}

// TestCheckedPositions gives errors of a further check the position of their
// path, or of what is around it.
func TestCheckedPositions(t *testing.T) {
	const text = "version: 1\ngroups:\n- workers: 1\n  work:\n    type: x\n    list: [{a: 1}, {b: 2}]\n"
	plain := errors.New("plain")
	_, err := ParseChecked([]byte(text), "f", func(s *Spec) error {
		return At("groups[0].work", errors.Join(At("list", At("[1]", At("b", plain))), At("gone", errors.New("is missing")), errors.New("all of it")))
	})
	want := "f:5:5: groups[0].work.gone: is missing\nf:5:5: groups[0].work: all of it\nf:6:24: groups[0].work.list[1].b: plain"
	if err == nil || err.Error() != want || !errors.Is(err, plain) {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := ParseChecked([]byte("version: 1"), "f", func(*Spec) error { panic("called") }); err == nil {
		t.Error("a spec without groups passes")
	}
	if _, err := ParseChecked([]byte(text), "f", func(*Spec) error { return plain }); err == nil || err.Error() != "f: plain" {
		t.Errorf("an error without a path: %v", err)
	}
	if At("a", nil) != nil {
		t.Error("At makes an error of nothing")
	}
}
