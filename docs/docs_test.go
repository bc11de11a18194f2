// Package docs holds the documents, and tests that they say what the code does.
package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spec"
)

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section is the text below the heading of a type, up to the next heading.
func section(text, name string) (string, bool) {
	heading := regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(name) + `$`)
	at := heading.FindStringIndex(text)
	if at == nil {
		return "", false
	}
	text = text[at[1]:]
	if next := strings.Index(text, "\n#"); next >= 0 {
		text = text[:next]
	}
	return text, true
}

// rows are the names in the first column of the tables of a text.
func rows(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// keys are the JSON names of a struct.
func keys(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// TestFields compares the tables of docs/report.md, events.md and spec.md with the
// types, both ways.
func TestFields(t *testing.T) {
	for doc, types := range map[string][]any{
		"docs/report.md": {report.Report{}, report.Run{}, report.Scheduler{}, report.Phase{}, report.Program{}, report.Check{}, report.Topology{}, report.TopologyNode{}, report.PhaseGroups{}, report.Group{}, report.Worker{}, report.ExitInfo{}, report.Output{},
			report.Migration{}, report.Schedstat{}, report.Latency{}, report.Bucket{}},
		"docs/events.md": {launch.Event{}, launch.GroupProgress{}},
		"docs/spec.md": {spec.Spec{}, spec.Group{}, spec.Affinity{}, spec.RandomSubset{}, spec.Sched{}, spec.MemPolicy{},
			spec.Cgroup{}, spec.Cpuset{}, spec.Defaults{}, spec.Step{}, spec.Hold{}, spec.Loop{}, spec.Backdrop{}, spec.Op{}, spec.SetCpuset{},
			spec.Spawn{}, spec.SetAffinity{}, spec.MoveTasks{}, spec.Program{}, spec.WaitProgram{}, spec.Scheduler{}, spec.Checks{}},
	} {
		text := read(t, doc)
		for _, v := range types {
			typ := reflect.TypeOf(v)
			body, ok := section(text, typ.Name())
			if !ok {
				t.Errorf("%s has no heading %s", doc, typ.Name())
				continue
			}
			have, want := rows(body), keys(typ)
			if len(want) == 0 {
				t.Errorf("%s has no JSON names", typ)
			}
			for _, k := range want {
				if !slices.Contains(have, k) {
					t.Errorf("%s: %s: no row for %s", doc, typ.Name(), k)
				}
			}
			for _, k := range have {
				if !slices.Contains(want, k) {
					t.Errorf("%s: %s: a row for %s, which %s has not", doc, typ.Name(), k, typ)
				}
			}
		}
	}
}

// TestExamples validates the specs of examples/.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d examples, error %v", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := check(string(data), filepath.Base(f)); err != nil {
				t.Error(err)
			}
		})
	}
}

// check reads and validates a spec as the command does.
func check(text, name string) error {
	_, err := scenario.Parse([]byte(text), name)
	return err
}

// block is a fenced block of a document.
type block struct{ lang, text string }

func blocks(text string) []block {
	var out []block
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// TestSpecsInDocs validates the specs that stand in the documents. One that
// begins with a comment of its file's name is wrong on purpose: the text block
// after it is what guestinit says.
func TestSpecsInDocs(t *testing.T) {
	name := regexp.MustCompile(`^# ([a-z]+\.yaml)\n`)
	good, bad := 0, 0
	for _, doc := range []string{"README.md", "docs/spec.md", "docs/troubleshooting.md"} {
		all := blocks(read(t, doc))
		for i, b := range all {
			if b.lang != "yaml" && b.lang != "json" {
				continue
			}
			m := name.FindStringSubmatch(b.text)
			if m == nil {
				good++
				if err := check(b.text, doc); err != nil {
					t.Errorf("%s: block %d: %v", doc, i, err)
				}
				continue
			}
			bad++
			if i+1 == len(all) {
				t.Fatalf("%s: no block with the errors of %s", doc, m[1])
			}
			want := strings.TrimSpace(all[i+1].text)
			if err := check(b.text, m[1]); err == nil || err.Error() != want {
				t.Errorf("%s: %s gives\n%v\nand the document says\n%s", doc, m[1], err, want)
			}
		}
	}
	if good < 5 || bad < 2 {
		t.Errorf("%d good and %d bad specs found; are the blocks still marked?", good, bad)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks checks that relative links lead to files, and their fragments to
// headings.
func TestLinks(t *testing.T) {
	docs := []string{"README.md"}
	err := fs.WalkDir(os.DirFS(filepath.Join(root, "docs")), ".", func(p string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(p, ".md") {
			docs = append(docs, "docs/"+p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, doc := range docs {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			checked++
			target, fragment, _ := strings.Cut(m[1], "#")
			file := doc
			if target != "" {
				file = path.Join(path.Dir(doc), target)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: link to %s: %v", doc, m[1], err)
				continue
			}
			if fragment != "" && !slices.Contains(anchors(read(t, file)), fragment) {
				t.Errorf("%s: link to %s: no such heading", doc, m[1])
			}
		}
	}
	if checked < 5 {
		t.Errorf("%d links found", checked)
	}
}

// anchors are the names that headings of a document are reached by.
func anchors(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		name := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		names = append(names, regexp.MustCompile("[^a-z0-9_-]").ReplaceAllString(name, ""))
	}
	return names
}

// TestPackages checks that the README lists every package.
func TestPackages(t *testing.T) {
	body, ok := section(read(t, "README.md"), "Packages")
	if !ok {
		t.Fatal("README.md has no heading Packages")
	}
	cmd := exec.Command("git", "ls-files", "*.go")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("list the files of the project: %v", err)
	}
	dirs := map[string]bool{}
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		dir := path.Dir(file)
		// What tests and benchmarks build, and helpers of tests, are no packages for users.
		if dir == "docs" || strings.Contains(file, "testdata/") || strings.HasSuffix(dir, "test") || strings.HasPrefix(dir, "internal/bench/boot/") {
			continue
		}
		dirs[dir] = true
	}
	if len(dirs) < 10 {
		t.Fatalf("%d packages in git", len(dirs))
	}
	for dir := range dirs {
		if !strings.Contains(body, "`"+dir+"`") {
			t.Errorf("README.md: Packages does not list %s", dir)
		}
	}
}
