package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/guestinit/guestinit/scenario"
)

// several is what our validator says of values that are right by themselves but
// do not go together, or depend on what the spec does with them. Only for these may
// it refuse what the schema accepts.
var several = regexp.MustCompile(strings.Join([]string{
	`is the name of .* already`, `there is a cgroup .* already`, `still runs`, `stand beside`, `has both`, `keep one`, `needs steps`,
	`has no (priority|runtime|nodes|flags|ops|groups|cgroup)`, `wants (at least one|one) node`, `exclude each other`, `stands twice`,
	`no multiple of`, `at least the (runtime|deadline)`, `from the duration`, `at most the duration`, `is left for it`,
	`no (cgroup|group|program|group that runs)`, `is the cgroup that`, `goes with its step`, `has cgroups inside`, `has groups:`, `cannot start groups`,
	`runs in (cgroup|this step)`, `is above cpu.uclamp.max`, `nested too deep`, `is a container`, `to the \d+ CPUs of from`, `is empty; start below end`,
	`out of range for`, `has no weight of its own`, `has \d+ (groups|steps|cgroups|ops|programs);`, `workers together`, `refuses|replaces its whole process`,
	`of the kernel's`, `are more than 256 MiB together`, `index: \d+ is out of range; 0 to`,
	// Relations and ranges within one text, which no pattern tells.
	`runs backwards`, `the highest number is`, `has no stride as the kernel`,
	`: (-?[0-9.hmsnuµ]+|"[^"]*") is out of range[;,] (use )?(above )?-?[0-9.]+[hmsnuµ]`, `is 0; give it a value or leave it out`, `is out of range; above 0, at most`, `at least 1\.024µs`,
}, "|"))

// pool is values that stand somewhere, right or wrong.
var pool = []any{
	nil, true, false, 0, 1, -1, 2, 63, 64, 99, 100, 8192, 100001, 1 << 40, 0.5, 1.5, -0.5,
	"", "a", "1", "-1", "0s", "1s", "-1s", "25h", "1 s", "1ms1", "10%", "100%", "101%", "1.234%", "%", "max", "64M", "9X", "0x10", "0-3", "3-0", "0-3:1/2", "0-3:3/2", "9000", "0,,1",
	"50000 100000", "50000", "5 5", "max 1000", "full", "inherit", "single_cpu", "fifo", "batch", "local", "bind", "spin_wait", "pipe_io", "exec", "a/b", "/bin/true", "A=b", "x y", "..", "cpu.max",
	"sixteen-bytes-xx", strings.Repeat("n", 65), []any{}, []any{"a"}, []any{1}, []any{1, 1}, []any{"a", "b"}, []any{map[string]any{}}, map[string]any{}, map[string]any{"a": 1},
	map[string]any{"type": "spin_wait"}, map[string]any{"type": "bursty", "burst_duration": "5ms"}, map[string]any{"exact": "0"}, map[string]any{"llc": 0}, map[string]any{"fixed": "1s"},
}

// corpus is good specs to make others of.
func corpus(t testing.TB) []any {
	var all []any
	for _, pattern := range []string{"../../examples/*.yaml", "../testdata/good/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, tree(t, string(text)))
		}
	}
	doc, err := os.ReadFile("../../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```(?:yaml|json)\n(version.*?)^```$").FindAllStringSubmatch(string(doc), -1) {
		all = append(all, tree(t, m[1]))
	}
	return all
}

// tree is a document as encoding/json has it.
func tree(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return clone(t, v)
}

func clone(t testing.TB, v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// slot is a place in a document: a key of an object or an element of a list.
type slot struct {
	object map[string]any
	key    string
	list   []any
	index  int
}

func (s slot) get() any {
	if s.object != nil {
		return s.object[s.key]
	}
	return s.list[s.index]
}

func (s slot) set(v any) {
	if s.object != nil {
		s.object[s.key] = v
		return
	}
	s.list[s.index] = v
}

// slots lists all places, in an order that does not change.
func slots(v any) (all []slot) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			all = append(append(all, slot{object: v, key: k}), slots(v[k])...)
		}
	case []any:
		for i := range v {
			all = append(append(all, slot{list: v, index: i}), slots(v[i])...)
		}
	}
	return all
}

// edit changes one place of a document.
func edit(t testing.TB, r *rand.Rand, doc any, others []slot) {
	all := slots(doc)
	if len(all) == 0 {
		return
	}
	s := all[r.IntN(len(all))]
	switch r.IntN(8) {
	case 0, 1:
		s.set(pool[r.IntN(len(pool))])
	case 2: // what stands elsewhere under this key
		same := slices.DeleteFunc(slices.Clone(others), func(o slot) bool { return o.key != s.key || s.object == nil })
		if len(same) > 0 {
			s.set(clone(t, same[r.IntN(len(same))].get()))
		}
	case 3: // a key that stands elsewhere
		if o := others[r.IntN(len(others))]; s.object != nil && o.object != nil {
			s.object[o.key] = clone(t, o.get())
		}
	case 4:
		if s.object != nil {
			delete(s.object, s.key)
		}
	case 5:
		if n, ok := s.get().(json.Number); ok {
			f, _ := n.Float64()
			s.set([]any{f + 1, f - 1, 0 - f, f * 1000, f + 0.25}[r.IntN(5)])
		}
	case 6:
		if text, ok := s.get().(string); ok && text != "" {
			at := r.IntN(len(text))
			s.set(text[:at] + []string{"", " ", "9", "x", "-", ".", "/", "%", "s"}[r.IntN(9)] + text[at+r.IntN(2):])
		}
	case 7:
		if list, ok := s.get().([]any); ok && len(list) > 0 {
			s.set(append(slices.Clone(list), clone(t, list[r.IntN(len(list))])))
		}
	}
}

// agree fails if our validator accepts what the schema refuses, or refuses for the
// form of a value what the schema accepts.
func agree(t *testing.T, s *jsonschema.Schema, text []byte) (ours, theirs bool) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	theirErr := s.Validate(doc)
	_, ourErr := scenario.Parse(text, "x")
	switch {
	case ourErr == nil && theirErr != nil:
		t.Errorf("accepted by us, refused by the schema:\n%s\n%v", text, theirErr)
	case ourErr != nil && theirErr == nil:
		for line := range strings.Lines(ourErr.Error()) {
			if !several.MatchString(line) {
				t.Errorf("accepted by the schema, refused by us:\n%s\n%s", text, line)
			}
		}
	}
	return ourErr == nil, theirErr == nil
}

// FuzzAgree holds the schema and our validator against each other, over good
// specs with a few changes.
func FuzzAgree(f *testing.F) {
	for seed := range uint64(3000) {
		f.Add(seed)
	}
	good := corpus(f)
	var others []slot
	for _, doc := range good {
		others = append(others, slots(doc)...)
	}
	var s *jsonschema.Schema
	counts := map[string]int{}
	f.Fuzz(func(t *testing.T, seed uint64) {
		if s == nil {
			s = compile(t)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		doc := clone(t, good[r.IntN(len(good))])
		for range 1 + r.IntN(3) {
			edit(t, r, doc, others)
		}
		text, err := json.Marshal(doc)
		if err != nil || !bytes.HasPrefix(text, []byte(`{"`)) {
			return
		}
		ours, theirs := agree(t, s, text)
		counts[fmt.Sprint(ours, theirs)]++
	})
	f.Logf("ours and theirs: %v", counts)
}
