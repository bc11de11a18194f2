package worker

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/spec"
)

// TestTableIsSound checks every row: names, ranges and defaults that fit each
// other, sets and regions at both ends of the ranges, and what it says for people.
func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for i := range Types {
		typ := &Types[i]
		if seen[typ.Name] || typ.Name == "" || typ.Family == "" || typ.Summary == "" || typ.loop == nil {
			t.Errorf("row %d (%s) is incomplete or there twice", i, typ.Name)
		}
		seen[typ.Name] = true
		params := map[string]bool{}
		var lowest, highest Instance
		lowest.Type, highest.Type = typ, typ
		for j := range typ.Params {
			p := &typ.Params[j]
			if params[p.Name] || p.Name == "" || p.Summary == "" || p.Name == "type" {
				t.Errorf("%s: parameter %d (%s) is incomplete or there twice", typ.Name, j, p.Name)
			}
			params[p.Name] = true
			lowest.Values[j], highest.Values[j] = p.Min, p.Max
			checkParam(t, typ, p, j)
		}
		if len(typ.Params) > MaxParams {
			t.Errorf("%s has %d parameters", typ.Name, len(typ.Params))
		}
		if n := lowest.GroupSize(); n < 1 || n > 4*maxSet {
			t.Errorf("%s: a set has %d workers at the least", typ.Name, n)
		}
		if n := highest.GroupSize(); n < 1 || n > 4*maxSet {
			t.Errorf("%s: a set has %d workers at the most", typ.Name, n)
		}
		if n := highest.RegionBytes(); n > 1<<20 {
			t.Errorf("%s: a region has %d bytes at the most", typ.Name, n)
		}
		if _, err := Parse(spec.Work{Type: typ.Name}); (err != nil) != typ.NeedsParams() {
			t.Errorf("%s with its defaults: %v", typ.Name, err)
		}
	}
}

func checkParam(t *testing.T, typ *Type, p *Param, index int) {
	t.Helper()
	switch p.Kind {
	case Text, Texts, Pairs:
		return
	case Phases:
		if len(p.Phases) == 0 || len(p.Phases) > MaxPhases || index+1+MaxPhases > MaxParams {
			t.Errorf("%s.%s: %d phases by default at slot %d", typ.Name, p.Name, len(p.Phases), index)
		}
		return
	case Enum:
		if int(p.Max) != len(p.Values)-1 {
			t.Errorf("%s.%s: %d values, the last is %d", typ.Name, p.Name, len(p.Values), p.Max)
		}
	}
	if p.Default < p.Min || p.Default > p.Max || p.Min > p.Max || p.Max == 0 {
		t.Errorf("%s.%s: default %d, range %d to %d", typ.Name, p.Name, p.Default, p.Min, p.Max)
	}
	// What a default is written as must be what a spec is read as.
	in := Instance{Type: typ}
	var v any = p.Format(p.Default)
	if p.Kind == Count {
		v = p.Default
	}
	if p.Kind == Bool {
		v = p.Default != 0
	}
	if err := in.set(index, v); err != nil || in.Values[index] != p.Default {
		t.Errorf("%s.%s: its default %v reads back as %d, %v", typ.Name, p.Name, v, in.Values[index], err)
	}
}

// TestRefusedParams gives every numeric parameter what lies just outside of its
// range, and others what they are not.
func TestRefusedParams(t *testing.T) {
	for i := range Types {
		for j := range Types[i].Params {
			p := &Types[i].Params[j]
			bad := []any{[]any{1}, map[string]any{}}
			switch {
			case p.Kind == Count && p.Max < math.MaxUint64:
				bad = append(bad, p.Max+1, "ten", -1, 1.5, "10ms", true)
			case p.Kind == Duration:
				bad = append(bad, 5, "-1s", "25h", "soon")
			case p.Kind == Enum, p.Kind == Phases:
				bad = append(bad, "no such thing", 1)
			case p.Kind == Bool:
				bad = append(bad, 1, "true")
			case p.Kind == Nodes:
				bad = append(bad, "64", "x", -1)
			case p.Kind == Texts:
				bad = append(bad[1:], 1, []any{"a", 1}, []any{}, make([]any, p.Max+1), []any{strings.Repeat("a", MaxText+1)}, slices.Repeat([]any{strings.Repeat("a", MaxText)}, 65))
			case p.Kind == Pairs:
				bad = []any{1, "a", []any{"A=b"}, map[string]any{"": "a"}, map[string]any{"a=b": "c"}, map[string]any{"a": 1}}
			case p.Kind == Text:
				bad = append(bad, 1, "a\x00b", strings.Repeat("a", MaxText+1))
			}
			if p.Min > 0 && p.Kind == Count {
				bad = append(bad, p.Min-1)
			}
			if p.Min > 0 && p.Kind == Duration {
				bad = append(bad, p.Format(p.Min-1))
			}
			for _, v := range bad {
				params := map[string]any{}
				if Types[i].NeedsParams() {
					params["argv"] = "true"
				}
				params[p.Name] = v
				_, err := Parse(spec.Work{Type: Types[i].Name, Params: params})
				if e := new(spec.Error); !errors.As(err, &e) || e.Path != p.Name && !strings.HasPrefix(e.Path, p.Name+"[") && !strings.HasPrefix(e.Path, p.Name+".") {
					t.Errorf("%s.%s = %v: %v", Types[i].Name, p.Name, v, err)
				}
			}
		}
	}
}

// TestEndsOfRanges gives every numeric parameter the ends of its range, and what
// lies just outside.
func TestEndsOfRanges(t *testing.T) {
	ends := 0
	for i := range Types {
		for j := range Types[i].Params {
			p := &Types[i].Params[j]
			if p.Kind != Count && p.Kind != Duration {
				continue
			}
			values := map[uint64]bool{p.Min: true, p.Max: true, p.Max + 1: false}
			if p.Min > 0 {
				values[p.Min-1] = false
			}
			for n, good := range values {
				params := map[string]any{p.Name: n}
				if p.Kind == Duration {
					params[p.Name] = time.Duration(n).String()
				}
				if Types[i].NeedsParams() && p.Name != "argv" {
					params["argv"] = "true"
				}
				in, err := Parse(spec.Work{Type: Types[i].Name, Params: params})
				if (err == nil) != good || good && in.Values[j] != n {
					t.Errorf("%s.%s = %v: want good %v, got %v", Types[i].Name, p.Name, params[p.Name], good, err)
				}
				ends++
			}
		}
	}
	if ends < 200 {
		t.Errorf("%d values were tried", ends)
	}
}

func TestFormatDuration(t *testing.T) {
	p := Param{Kind: Duration}
	for ns, want := range map[uint64]string{0: "0s", 1000: "1µs", 60e9: "1m", 90e9: "1m30s", 3600e9: "1h", 86400e9: "24h", 3630e9: "1h0m30s", 10e9: "10s", 100 * 60e9: "1h40m"} {
		if got := p.Format(ns); got != want {
			t.Errorf("%d ns is %s, want %s", ns, got, want)
		}
	}
}

func TestNearestNames(t *testing.T) {
	for _, c := range []struct {
		work spec.Work
		want string
	}{
		{spec.Work{Type: "futex_pingpong"}, `did you mean "futex_ping_pong"?`},
		{spec.Work{Type: "wake_chain", Params: map[string]any{"wake": "futx"}}, `did you mean "futex"?`},
		{spec.Work{Type: "wake_chain", Params: map[string]any{"deph": 3}}, `did you mean "depth"?`},
		{spec.Work{Type: "nice_sweep", Params: map[string]any{"depth": 3}}, "it takes none"},
		{spec.Work{Type: "sequence", Params: map[string]any{"phases": []any{map[string]any{"slep": "1ms"}}}}, `did you mean "sleep"?`},
	} {
		if _, err := Parse(c.work); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.work, err, c.want)
		}
	}
}

func TestPhases(t *testing.T) {
	s, err := spec.Parse([]byte("version: 1\ngroups:\n- workers: 1\n  work: {type: sequence, phases: [{sleep: 5ms}, {io: 1s}, {alu_hot: 2us}]}\n"), "test")
	if err != nil {
		t.Fatal(err)
	}
	in, err := Parse(s.Groups[0].Work)
	if err != nil {
		t.Fatal(err)
	}
	want := [...]uint64{aluWidest, 3, packPhase(phaseSleep, 5e6), packPhase(phaseIO, 1e9), packPhase(phaseALU, 2000), 0}
	if got := [6]uint64(in.Values[:6]); got != want || !PhasesUseFile(&in.Values) {
		t.Errorf("the phases are %x, want %x; they use a file: %v", got, want, PhasesUseFile(&in.Values))
	}
	for _, bad := range []any{[]any{}, []any{"spin"}, []any{map[string]any{"spin": "1ms", "io": "1ms"}}, []any{map[string]any{"spin": 3}},
		[]any{map[string]any{"spin": "1ns"}}, make([]any, MaxPhases+1)} {
		if _, err := Parse(spec.Work{Type: "sequence", Params: map[string]any{"phases": bad}}); err == nil {
			t.Errorf("phases %v are accepted", bad)
		}
	}
}

// TestRoles pins which positions of a set record wake latencies.
func TestRoles(t *testing.T) {
	for _, c := range []struct{ typ, want string }{ // w: it does, -: it does not
		{"futex_fan_out", "-wwww"}, {"fan_out_compute", "-wwww"}, {"thundering_herd", "wwwwwwww"},
		{"wake_chain", "wwww"}, {"asymmetric_waker", "-w"}, {"priority_inversion", "w-w"}, {"epoll_storm", "-ww"},
		{"producer_consumer_imbalance", "www"}, {"rt_starvation", "--"}, {"preempt_storm", "---"}, {"signal_storm", "--"},
		{"cgroup_attach_storm", "-"}, {"fork_exit", "w"}, {"cache_pipe", "ww"}, {"smt_sibling_spin", "--"},
	} {
		in, err := Parse(spec.Work{Type: c.typ})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for pos := range in.GroupSize() {
			if in.Wakes(pos) {
				got += "w"
			} else {
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.typ, got, c.want)
		}
	}
}

func TestHelpersOfLoops(t *testing.T) {
	for _, c := range []struct {
		now  int64
		skip bool
		want int64
	}{
		{1005, false, 1100}, {1005, true, 1100}, {1100, true, 1100}, {1101, true, 1200}, {1101, false, 1100}, {5300, true, 5300}, {5301, true, 5400}, {5301, false, 1100},
	} {
		if got := nextDeadline(1000, 100, c.now, c.skip); got != c.want {
			t.Errorf("at %d, skip %v, the next deadline is %d, want %d", c.now, c.skip, got, c.want)
		}
	}
	if got := [...]uint64{nthBit(0b1101, 0), nthBit(0b1101, 1), nthBit(0b1101, 2), nthBit(0b1101, 3)}; got != [...]uint64{1, 4, 8, 1} {
		t.Errorf("nthBit gives %v", got)
	}
	var m CPUMask
	m[0], m[2] = 0b101, 1<<63
	if m.count() != 3 || m.nth(0) != 0 || m.nth(1) != 2 || m.nth(2) != 191 {
		t.Errorf("the mask has %d CPUs: %d, %d, %d", m.count(), m.nth(0), m.nth(1), m.nth(2))
	}
	if side := matrixSide(256); side != 104 {
		t.Errorf("three matrices of %d² fit 256 KiB, want 104", side)
	}
	for asked, want := range map[uint64]uint32{aluScalar: 64, alu128: 128, aluWidest: widestVector(), aluAMX: widestVector()} {
		if got := vectorBits(asked); got != want {
			t.Errorf("%s runs %d bits, want %d", aluWidths[asked], got, want)
		}
	}
	var s Slab
	for range 10000 {
		if n := s.randomBelow(7); n > 6 {
			t.Fatalf("randomBelow(7) is %d", n)
		}
	}
}
