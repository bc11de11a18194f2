package policy

import (
	"path"
	"strings"
	"testing"
)

// root is the root of the project, from here.
const root = "../.."

func TestProject(t *testing.T) {
	files := project(t, root)
	if len(files) < 50 {
		t.Fatalf("%d files below %s; is that the project?", len(files), root)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range files {
				for _, bad := range r.check(f) {
					t.Errorf("%s:%s", f.path, bad)
				}
			}
		})
	}
}

// Every package says what it is for.
func TestPackageDocs(t *testing.T) {
	for _, dir := range undocumentedPackages(project(t, root)) {
		t.Errorf("package %s has no package comment", dir)
	}
}

// undocumentedPackages are the directories of which no file has a package comment.
func undocumentedPackages(files []*file) []string {
	documented := map[string]bool{}
	var dirs []string
	for _, f := range files {
		if f.ast == nil || strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		if _, seen := documented[f.dir()]; !seen {
			dirs = append(dirs, f.dir())
		}
		documented[f.dir()] = documented[f.dir()] || f.ast.Doc.Text() != ""
	}
	var bad []string
	for _, d := range dirs {
		if !documented[d] {
			bad = append(bad, d)
		}
	}
	return bad
}

func TestUndocumentedPackages(t *testing.T) {
	var files []*file
	for name, src := range map[string]string{
		"a/doc.go": "// Package a is documented.\npackage a\n", "a/a.go": "package a\n", "b/b.go": "package b\n", "b/b_test.go": "// Package b.\npackage b\n",
	} {
		files = append(files, mustParse(t, name, src))
	}
	if got := undocumentedPackages(files); len(got) != 1 || got[0] != "b" {
		t.Errorf("got %v, want b", got)
	}
}

func mustParse(t *testing.T, name, src string) *file {
	t.Helper()
	f, err := parse(name, src)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Each rule finds what it is for, and nothing beside it.
func TestRules(t *testing.T) {
	long := "package p\n" + strings.Repeat("\n", maxLines)
	tests := []struct {
		rule, path, src string
		want            string // in the message; "" if the file is good
	}{
		{"unsafe", "worker/slab.go", "package worker\nimport \"unsafe\"", "2: import of unsafe"},
		{"unsafe", "guest/x_unsafe.go", "package guest\nimport _ \"unsafe\"", "2: import of unsafe"},
		{"unsafe", "guest/x.go", "package guest\nimport \"C\"", "2: import of C"},
		{"unsafe", "spawn/x.go", "package spawn\n//go:linkname a runtime.a\nfunc a()", "2: go:linkname"},
		{"unsafe", "worker/slab_unsafe.go", "package worker\nimport \"unsafe\"\n//go:linkname a b\nfunc a()", ""},
		{"unsafe", "internal/bare/tls_unsafe_amd64.go", "package bare\nimport \"unsafe\"", ""},
		{"unsafe", "worker/slab_unsafe_test.go", "package worker\nimport \"unsafe\"", ""},
		{"unsafe", "internal/bare/task.s", "TEXT", "1: assembly"},
		{"unsafe", "guest/task_amd64.s", "TEXT", "1: assembly"},
		{"unsafe", "internal/bare/task_arm64.s", "TEXT", ""},

		{"import order", "spec/x.go", "package spec\nimport \"" + module + "report\"", "2: spec may not import report"},
		{"import order", "worker/x.go", "package worker\nimport b \"" + module + "spawn\"", "2: worker may not import spawn"},
		{"import order", "guest/x.go", "package guest\nimport \"" + module + "scenario\"", "2: guest may not import scenario"},
		{"import order", "vsock/x.go", "package vsock\nimport \"" + module + "report\"", "2: vsock may not import report"},
		{"import order", "news/x.go", "package news", "1: package news has no row"},
		{"import order", "launch/x.go", "package launch\nimport \"" + module + "qemu/qemutest\"", "2: qemu/qemutest is for tests"},
		{"import order", "launch/x.go", "package launch\nimport \"" + module + "cmd/guestinit\"", "2: launch may not import cmd/guestinit"},
		{"import order", "cmd/guestinit/x.go", "package main\nimport \"net/http\"", "2: net/http brings"},
		{"import order", "cmd/guestinit/x.go", "package main\nimport (\n\"" + module + "launch\"\n\"" + module + "guest\"\n)", ""},
		{"import order", "launch/x_test.go", "package launch\nimport \"" + module + "guest\"\nimport \"" + module + "qemu/qemutest\"", ""},
		{"import order", "spawn/x.go", "package spawn\nimport \"" + module + "worker\"\nimport \"fmt\"", ""},

		{"doc comments", "p/x.go", "package p\nfunc F() {}", "2: F has no doc"},
		{"doc comments", "p/x.go", "package p\n\n// T is.\ntype T[E any] struct{}\nfunc (t *T[E]) M() {}", "5: M has no doc"},
		{"doc comments", "p/x.go", "package p\ntype T int", "2: T has no doc"},
		{"doc comments", "p/x.go", "package p\n// Group.\ntype (\n\tT int\n)", "4: T has no doc"},
		{"doc comments", "p/x.go", "package p\nconst (\n\tA = 1\n\tb = 2\n)", "3: A has no doc"},
		{"doc comments", "p/x.go", "package p\nvar A, B int", "2: A has no doc"},
		{"doc comments", "p/x.go", "package p\n//go:noinline\nfunc F() {}", "3: F has no doc"},
		{"doc comments", "p/x.go", "package p\n// The letters.\nconst (\n\tA = 1\n)\nvar V = 1 // V is.\n// F is.\nfunc F() {}\ntype t int\nfunc (t) M() {}\nfunc g() {}", ""},
		{"doc comments", "cmd/x/x.go", "package main\nfunc F() {}", ""},
		{"doc comments", "p/x_test.go", "package p\nfunc F() {}", ""},

		{"no sleeping", "p/x.go", "package p\nimport \"time\"\nfunc f() { time.Sleep(1) }", "3: time.Sleep"},
		{"no sleeping", "p/x.go", "package p\nimport t \"time\"\nvar f = t.Sleep", "3: time.Sleep"},
		{"no sleeping", "worker/x.go", "package worker\nimport \"time\"\nfunc f() { time.Sleep(1) }", ""},
		{"no sleeping", "p/x_test.go", "package p\nimport \"time\"\nfunc f() { time.Sleep(1) }", ""},
		{"no sleeping", "p/x.go", "package p\nfunc f() { clock.Sleep(1) }", ""},

		{"nothing before main", "p/x.go", "package p\nvar re = regexp.MustCompile(`x`)", "2: a call of MustCompile"},
		{"nothing before main", "p/x.go", "package p\nvar (\n\ta = 1\n\tip = netip.MustParseAddr(`x`)\n)", "4: a call of MustParseAddr"},
		{"nothing before main", "p/x.go", "package p\nvar t, _ = template.New(`x`).Parse(`x`)", "2: a call of Parse"},
		{"nothing before main", "p/x.go", "package p\nvar m = map[string]int{`a`: 1}", "2: a map"},
		{"nothing before main", "p/x.go", "package p\nvar m = []T{{map[string]int{}}}", "2: a map"},
		{"nothing before main", "p/x.go", "package p\nfunc init() {}", "2: func init"},
		{"nothing before main", "p/x.go", "package p\nvar re = sync.OnceValue(func() *R { return regexp.MustCompile(`x`) })\nvar e = errors.New(`x`)\nvar s = []int{1}\nfunc f() { _ = map[int]int{1: 1} }\nfunc (t) init() {}", ""},
		{"nothing before main", "p/x_test.go", "package p\nvar re = regexp.MustCompile(`x`)", ""},

		{"size", "p/x.go", long, "601 lines"},
		{"size", "p/x.go", strings.TrimSuffix(long, "\n"), ""},

		{"error text", "p/x.go", "package p\nfunc f() error { return fmt.Errorf(\"failed to open %s: %w\", a, b) }", "2: error text"},
		{"error text", "p/x.go", "package p\nvar e = errors.New(\"it failed to start\")", "2: error text"},
		{"error text", "p/x.go", "package p\nfunc f() error { return fmt.Errorf(\"open %s: %w\", a, b) }", ""},
	}
	covered := map[string]bool{}
	for _, tt := range tests {
		for _, r := range rules {
			if r.name != tt.rule {
				continue
			}
			covered[r.name] = covered[r.name] || tt.want != ""
			got := strings.Join(r.check(mustParse(t, tt.path, tt.src)), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("%s: %s:\n%s\ngot  %q\nwant %q", tt.rule, tt.path, tt.src, got, tt.want)
			}
		}
	}
	for _, r := range rules {
		if !covered[r.name] {
			t.Errorf("rule %q has no bad sample", r.name)
		}
	}
}

// The import order has no circle, and every row's imports have a row.
func TestImportOrder(t *testing.T) {
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(dir string, chain []string)
	visit = func(dir string, chain []string) {
		if state[dir] == 1 {
			t.Errorf("circle: %s", strings.Join(append(chain, dir), " → "))
		}
		if state[dir] != 0 {
			return
		}
		state[dir] = 1
		row, ok := mayImport[dir]
		if !ok || path.Clean(dir) != dir {
			t.Errorf("%s has no row", dir)
		}
		for _, d := range row {
			visit(d, append(chain, dir))
		}
		state[dir] = 2
	}
	for dir := range mayImport {
		visit(dir, nil)
	}
}
