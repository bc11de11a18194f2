package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with go test ./report -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (accept with -update); got:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestTableGolden(t *testing.T) {
	for _, tt := range []struct {
		name  string
		r     *Report
		width int
	}{
		{"pass.table", sampleReport(), 0},
		{"fail.table", failedReport(), 100},
		{"narrow.table", failedReport(), 80},
		{"empty.table", &Report{}, 0},
		{"timeout.table", timedOutReport(), 0},
		{"torn.table", tornReport(), 0},
		{"nolink.table", &Report{Verdict: Pass, Run: Run{Name: "alone", KernelRelease: "6.12", CPUs: 1, Accelerator: AcceleratorUnknown, Link: "none"}}, 0},
	} {
		var b bytes.Buffer
		if err := WriteTable(&b, tt.r, tt.width); err != nil {
			t.Fatal(err)
		}
		golden(t, tt.name, b.Bytes())
	}
}

// The line of the boot has a fixed order, whatever the figures.
func TestBootOrder(t *testing.T) {
	run := Run{BootMs: map[string]float64{
		"spec": 9000, "link": 1, "modules": 800, "mounts": 2, "image": 700, "zebra": 1, "alpha": 2,
		"ready": 3, "init": 600, "qemu_to_hello": 4, "qemu_to_init": 500,
	}}
	var got []string
	for part := range strings.SplitSeq(boot(&run), ", ") {
		name, _, _ := strings.Cut(part, " ")
		got = append(got, name)
	}
	want := "qemu_to_init qemu_to_hello init ready image mounts modules link spec alpha zebra"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whatever the figures, the table fits 100 columns and has nothing in it that a
// terminal acts on.
func TestTableFits(t *testing.T) {
	r := failedReport()
	for i := range r.Groups {
		g := &r.Groups[i]
		g.Name = strings.Repeat("name", 30)
		g.WorkType = "producer_consumer_imbalance\x1b]0;title\x07"
		g.IterationsPerS, g.RunDelayNs, g.Migrations, g.MaxGapNs = 9.994e14, 1<<63, 1<<63, 1<<63
		g.Workers, g.Completed = 100_000, 100_000
		g.WakeLatency = &Latency{Count: 1 << 63, Min: 123_456, P50: 999_499, P90: 59e9, P99: 59e9, P999: 59e9, Max: 1 << 63, Mean: 1e18}
	}
	r.Run.KernelRelease = strings.Repeat("6.12-", 50)
	r.Failures = append(r.Failures, strings.Repeat("x", 300))
	var b bytes.Buffer
	if err := WriteTable(&b, r, 100); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.IndexFunc(line, unprintable) >= 0 {
			t.Errorf("unprintable: %q", line)
		}
	}
}

func TestJSONGolden(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, failedReport(), false); err != nil {
		t.Fatal(err)
	}
	golden(t, "fail.json", b.Bytes())
}

// The JSON is read back by a strict decoder as the report that was written.
func TestJSONRoundTrip(t *testing.T) {
	for name, r := range map[string]*Report{"pass": sampleReport(), "fail": failedReport(), "empty": {Groups: []Group{}, Workers: []Worker{}}} {
		for _, samples := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s samples=%t", name, samples), func(t *testing.T) {
				var b bytes.Buffer
				if err := WriteJSON(&b, r, samples); err != nil {
					t.Fatal(err)
				}
				d := json.NewDecoder(&b)
				d.DisallowUnknownFields()
				var got Report
				if err := d.Decode(&got); err != nil {
					t.Fatal(err)
				}
				if d.More() {
					t.Error("more than one value")
				}
				var spec bytes.Buffer
				if len(got.Run.Spec) > 0 {
					if err := json.Compact(&spec, got.Run.Spec); err != nil {
						t.Fatal(err)
					}
					got.Run.Spec = spec.Bytes()
				}
				if want := asJSONHas(r, samples); !reflect.DeepEqual(&got, want) {
					t.Errorf("got\n%+v\nwant\n%+v", &got, want)
				}
			})
		}
	}
}

// asJSONHas is r without what JSON leaves out.
func asJSONHas(r *Report, samples bool) *Report {
	c := *r
	c.Groups = append([]Group{}, r.Groups...)
	c.Workers = append([]Worker{}, r.Workers...)
	strip := func(l **Latency) {
		if *l == nil {
			return
		}
		k := **l
		k.Sum = 0
		if !samples {
			k.Buckets, k.Samples = nil, nil
		}
		*l = &k
	}
	for i := range c.Groups {
		strip(&c.Groups[i].WakeLatency)
		strip(&c.Groups[i].IterationCost)
		strip(&c.Groups[i].TimerLatency)
	}
	for i := range c.Workers {
		strip(&c.Workers[i].WakeLatency)
		strip(&c.Workers[i].IterationCost)
		strip(&c.Workers[i].TimerLatency)
	}
	return &c
}

// Scripts rely on these names.
func TestJSONStableNames(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, failedReport(), false); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	latency := []string{"count", "min", "p50", "p90", "p99", "p99_9", "max", "mean"}
	workers := got["workers"].([]any)
	crashed, timer := workers[1].(m), workers[6].(m)
	for what, tt := range map[string]struct {
		object any
		names  []string
	}{
		"report": {got, []string{"schema_version", "verdict", "run", "groups", "workers"}},
		"run":    {got["run"], []string{"kernel_release", "accelerator", "link", "duration_ms"}},
		"worker": {crashed, []string{"tid", "group_index", "work_type", "completed", "partial", "exit_info", "work_units", "iterations",
			"wall_ns", "cpu_ns", "off_cpu_ns", "migrations", "cpus_used", "max_gap_ns", "schedstat"}},
		"exit_info":         {crashed["exit_info"], []string{"kind", "code", "signal", "text", "stack"}},
		"wake_latency_ns":   {crashed["wake_latency_ns"], latency},
		"timer_latency_ns":  {timer["timer_latency_ns"], latency},
		"iteration_cost_ns": {timer["iteration_cost_ns"], latency},
	} {
		object, ok := tt.object.(m)
		if !ok {
			t.Errorf("%s is missing", what)
			continue
		}
		for _, name := range tt.names {
			if _, ok := object[name]; !ok {
				t.Errorf("%s has no %s", what, name)
			}
		}
		if object["buckets"] != nil || object["samples"] != nil {
			t.Errorf("%s has samples", what)
		}
	}
	if b := sampleReport().Run.BootMs; len(b) == 0 || !strings.Contains(sampleJSON(t), `"boot_ms": {`) {
		t.Error("run has no boot_ms")
	}
}

func sampleJSON(t *testing.T) string {
	var b bytes.Buffer
	if err := WriteJSON(&b, sampleReport(), false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteErrors(t *testing.T) {
	if err := WriteJSON(failingWriter{}, sampleReport(), true); err == nil {
		t.Error("JSON: a write error is lost")
	}
	if err := WriteTable(failingWriter{}, sampleReport(), 0); err == nil {
		t.Error("table: a write error is lost")
	}
	if err := WriteJSON(&bytes.Buffer{}, &Report{Run: Run{Spec: json.RawMessage("{")}}, false); err == nil {
		t.Error("JSON: a spec that is no JSON is written")
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		ns   float64
		want string
	}{
		{0, "0"}, {1, "1ns"}, {999.4, "999ns"}, {999.5, "1.00us"}, {1_250, "1.25us"}, {9_996, "10.0us"}, {99_960, "100us"}, {999_499, "999us"},
		{999_500, "1.00ms"}, {31e6, "31.0ms"}, {4.02e9, "4.02s"}, {725e9, "725s"}, {1805e9, "30m05s"}, {11520e9, "3h12m"}, {1 << 63, "106751d"}, {-2e3, "-2.00us"},
	} {
		if got := formatNs(tt.ns); got != tt.want {
			t.Errorf("formatNs(%v) = %s, want %s", tt.ns, got, tt.want)
		}
	}
	for _, tt := range []struct {
		n    float64
		want string
	}{{0, "0"}, {7, "7"}, {9999, "9999"}, {10_000, "10.0k"}, {12.345, "12.3"}, {0.25, "0.25"}, {123_456, "123k"}, {999_600, "1.00M"}, {5.5e9, "5.50G"}, {1e13, "10.0T"}, {1 << 63, "9.22E"}} {
		if got := formatCount(tt.n); got != tt.want {
			t.Errorf("formatCount(%v) = %s, want %s", tt.n, got, tt.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{"", nil}, {"one two", []string{"one two"}}, {"one  two three", []string{"one two", "three"}},
		{"abcdefghijkl", []string{"abcdefgh", "ijkl"}}, {"ab abcdefghijkl x", []string{"ab", "abcdefgh", "ijkl x"}},
	} {
		if got := wrap(tt.in, 8); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("wrap(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
