package spec

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// decodeCpuset reads a cpuset as a spec's decoder does, then checks it.
func decodeCpuset(data string) (*Cpuset, error) {
	read := readYAML
	if looksLikeJSON([]byte(data)) {
		read = readJSON
	}
	n, err := read([]byte(data))
	if err != nil {
		return nil, err
	}
	d := decoder{name: "x", at: map[string]*node{}, broken: map[string]bool{}, left: maxNodes}
	s := d.cpuset(n, "cpuset")
	if len(d.errs) == 0 {
		c := new(checker)
		c.cpuset("cpuset", s)
		d.errs = c.errs
	}
	return s, joinErrors(d.errs)
}

func pointer[T any](v T) *T { return &v }

func TestCpuset(t *testing.T) {
	for data, want := range map[string]*Cpuset{
		"0-3,8":                                 {Exact: CPUList{0, 1, 2, 3, 8}},
		"5":                                     {Exact: CPUList{5}},
		"[3, 1]":                                {Exact: CPUList{1, 3}},
		"{exact: 0-1}":                          {Exact: CPUList{0, 1}},
		"{llc: 0}":                              {LLC: pointer(0)},
		"{numa: 1}":                             {NUMA: pointer(1)},
		"{range: {start: 0, end: 0.5}}":         {Range: &CpusetRange{0, 0.5}},
		"{range: {start: 0.25, end: 1}}":        {Range: &CpusetRange{0.25, 1}},
		"{disjoint: {index: 0, of: 2}}":         {Disjoint: &CpusetPart{0, 2}},
		"{overlap: {index: 1, of: 2, frac: 1}}": {Overlap: &CpusetOverlap{1, 2, 1}},
		"{overlap: {index: 1, of: 2, frac: 0}}": {Overlap: &CpusetOverlap{1, 2, 0}},
		"{range: {start: 0.0000001, end: 1.0}}": {Range: &CpusetRange{1e-7, 1}},
	} {
		got, err := decodeCpuset(data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", data, got, err)
			continue
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeCpuset(string(text)); err != nil || !reflect.DeepEqual(back, want) {
			t.Errorf("%s: %s reads back as %+v, %v", data, text, back, err)
		}
	}
}

func TestBadCpuset(t *testing.T) {
	for data, want := range map[string]string{
		`""`:                                       "cpuset: empty CPU set; name CPUs",
		"{}":                                       "cpuset: empty CPU set",
		"{exact: []}":                              "cpuset: empty CPU set",
		"{llc: 0, numa: 0}":                        "cpuset: has both llc and numa; keep one",
		"{llc: -1}":                                "x:1:7: cpuset.llc: -1 is out of range; 0 to 8191",
		"{llc: 0.5}":                               "cpuset.llc: is a number (\"0.5\"), want a whole number",
		"{numa: 64}":                               "cpuset.numa: 64 is out of range; 0 to 63",
		"{llcs: 0}":                                "cpuset.llcs: unknown field; did you mean llc?",
		"{range: {start: 0.5, end: 0.5}}":          "cpuset.range: from 0.5 to 0.5 is empty",
		"{range: {start: 0}}":                      "x:1:10: cpuset.range.end: is missing",
		"{range: {end: 0.5}}":                      "cpuset.range.start: is missing",
		"{overlap: {index: 1, of: 2}}":             "cpuset.overlap.frac: is missing",
		"{disjoint: {of: 2}}":                      "cpuset.disjoint.index: is missing",
		"{range: {start: 0, end: 1.1}}":            "cpuset.range.end: 1.1 is out of range; 0 to 1",
		"{range: {start: -0.1, end: 1}}":           "cpuset.range.start: -0.1 is out of range; 0 to 1",
		"{range: {start: low, end: 1}}":            "cpuset.range.start: is text (\"low\"), want a number",
		"{disjoint: {index: 2, of: 2}}":            "cpuset.disjoint.index: 2 is out of range; 0 to 1",
		"{disjoint: {index: 0, of: 0}}":            "cpuset.disjoint.of: 0 is out of range; 1 to 8192",
		"{disjoint: {index: 0}}":                   "cpuset.disjoint.of: is missing",
		"{overlap: {index: 0, of: 2, frac: 2}}":    "cpuset.overlap.frac: 2 is out of range; 0 to 1",
		"{overlap: {index: 0, of: 2, frac: .nan}}": "is no value of a spec",
		"{disjoint: {index: 0, of: 2, frac: 0.5}}": "cpuset.disjoint.frac: unknown field",
		"0-9000":                                   "the highest number is 8191",
		"llc":                                      "is no number or range",
		"true":                                     "cpuset: is true or false, want a list",
	} {
		if _, err := decodeCpuset(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", data, err, want)
		}
	}
	// What no decoder made is checked too.
	c := new(checker)
	c.cpuset("c", &Cpuset{Overlap: &CpusetOverlap{Index: 5, Of: 4, Frac: -1}})
	c.cpuset("c", &Cpuset{Exact: CPUList{1, 1}})
	c.cpuset("c", &Cpuset{Exact: CPUList{-1}})
	c.cpuset("c", &Cpuset{LLC: pointer(-1)})
	if len(c.errs) != 5 {
		t.Errorf("%d errors: %v", len(c.errs), c.errs)
	}
}

func FuzzCpuset(f *testing.F) {
	for _, s := range []string{"0-3,8", "{llc: 0}", "{range: {start: 0, end: 0.5}}", "{overlap: {index: 1, of: 2, frac: 1e-3}}", "{exact: [1, 2]}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		if len(data) > 1<<12 {
			return
		}
		s, err := decodeCpuset(data)
		if err != nil {
			return
		}
		if set := s.forms(); len(set) != 1 {
			t.Fatalf("%q: accepted with %v", data, set)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeCpuset(string(text)); err != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("%s reads back as %+v, %v", text, back, err)
		}
	})
}
