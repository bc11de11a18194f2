package policy

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// rule is one rule of the house. check returns what breaks it, "LINE: MESSAGE".
type rule struct {
	name  string
	check func(f *file) []string
}

var rules = []rule{
	{"unsafe", checkUnsafe},
	{"import order", checkImports},
	{"doc comments", checkDocs},
	{"no sleeping", checkSleep},
	{"nothing before main", checkInit},
	{"size", checkSize},
	{"error text", checkErrorText},
}

// unsafeDirs are the packages that may go around the language: system calls by
// hand, shared memory, code outside the runtime, and one ioctl probe; samples that
// leave from where they are.
var unsafeDirs = []string{"internal/bare", "internal/firstline", "spawn", "worker", "vsock", "vsock/vhostuser", "report", "qemu"}

// asmDirs are the packages that may have assembly.
var asmDirs = []string{"internal/bare", "internal/firstline", "spawn", "worker", "vsock/vhostuser"}

var (
	unsafeName = regexp.MustCompile(`_unsafe(_amd64|_arm64)?(_test)?\.go$`)
	asmName    = regexp.MustCompile(`_(amd64|arm64)\.s$`)
)

// checkUnsafe: danger is visible in a listing of the files.
func checkUnsafe(f *file) []string {
	if f.ast == nil {
		if !asmName.MatchString(f.base()) || !within(f.dir(), asmDirs) {
			return []string{fmt.Sprintf("1: assembly stands in files *_{amd64,arm64}.s of %s", strings.Join(asmDirs, ", "))}
		}
		return nil
	}
	if unsafeName.MatchString(f.base()) && within(f.dir(), unsafeDirs) {
		return nil
	}
	var bad []string
	report := func(pos token.Pos, what string) {
		bad = append(bad, fmt.Sprintf("%d: %s stands only in files *_unsafe.go of %s", f.line(pos), what, strings.Join(unsafeDirs, ", ")))
	}
	f.imports(func(_, path string, pos token.Pos) {
		if path == "unsafe" || path == "C" {
			report(pos, "import of "+path)
		}
	})
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//go:linkname ") {
				report(c.Pos(), "go:linkname")
			}
		}
	}
	return bad
}

// mayImport is the import order: what of ours a package may import. Downwards:
// cmd → launch → guest, qemu, initramfs, kernel; cmd → scenario → spawn → worker →
// internal/bare. Plain data and protocols import nothing of ours but the form of a
// sample.
var mayImport = map[string][]string{
	"spec":               {},
	"report":             {"internal/sample"},
	"vsock":              {},
	"vsock/vhostuser":    {},
	"internal/bare":      {"internal/sample"},
	"internal/sample":    {},
	"internal/policy":    {},
	"program":            {},
	"scx":                {"program", "report"},
	"worker":             {"internal/bare", "report", "spec"},
	"spec/schema":        {"spec", "worker"},
	"worker/walktest":    {},
	"spawn":              {"internal/bare", "report", "spec", "worker"},
	"scenario":           {"program", "report", "scx", "spawn", "spec", "topology", "worker"},
	"topology":           {"spec"},
	"check":              {"report", "spec"},
	"kernel":             {},
	"initramfs":          {"kernel"},
	"qemu":               {},
	"guest/cmdline":      {"spec"},
	"internal/firstline": {},
	"internal/guesttest": {},
	"guest":              {"check", "guest/cmdline", "internal/firstline", "report", "spec", "vsock"},
	"guest/workload":     {"guest", "program", "report", "scenario", "spawn", "spec", "vsock"},
	"launch":             {"check", "guest/cmdline", "initramfs", "kernel", "qemu", "report", "spec", "vsock", "vsock/vhostuser"},
}

// anyImport are the trees that may import all of ours: nothing imports them.
var anyImport = []string{"cmd/", "e2e/", "internal/bench/", "internal/scxfifo/"}

// banned are packages of others that cost more than they bring, with the reason.
var banned = map[string]string{
	"net/http":  "brings TLS and a megabyte into /init",
	"io/ioutil": "is os and io since Go 1.16",
}

// checkImports: tests may import upwards, and helpers for tests are for tests.
func checkImports(f *file) []string {
	if f.ast == nil {
		return nil
	}
	var bad []string
	allowed, known := mayImport[f.dir()]
	free := f.isTest() || slices.ContainsFunc(anyImport, func(p string) bool { return strings.HasPrefix(f.path, p) })
	if !known && !free {
		bad = append(bad, fmt.Sprintf("1: package %s has no row in the import order; add one in internal/policy", f.dir()))
	}
	f.imports(func(_, path string, pos token.Pos) {
		if why := banned[path]; why != "" {
			bad = append(bad, fmt.Sprintf("%d: %s %s", f.line(pos), path, why))
		}
		dir, ours := strings.CutPrefix(path, module)
		switch {
		case !ours || f.isTest():
		case strings.HasSuffix(dir, "test"):
			bad = append(bad, fmt.Sprintf("%d: %s is for tests", f.line(pos), dir))
		case known && !within(dir, allowed):
			bad = append(bad, fmt.Sprintf("%d: %s may not import %s; it may import %q", f.line(pos), f.dir(), dir, allowed))
		case slices.ContainsFunc(anyImport, func(p string) bool { return strings.HasPrefix(dir+"/", p) }) && !free:
			bad = append(bad, fmt.Sprintf("%d: nothing imports %s", f.line(pos), dir))
		}
	})
	return bad
}

// checkDocs: every exported name has a doc comment; a group of constants or
// variables may share one.
func checkDocs(f *file) []string {
	if f.ast == nil || f.isTest() || f.ast.Name.Name == "main" {
		return nil
	}
	var bad []string
	missing := func(pos token.Pos, name string) {
		bad = append(bad, fmt.Sprintf("%d: %s has no doc comment", f.line(pos), name))
	}
	for _, decl := range f.ast.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && exportedReceiver(d) && d.Doc.Text() == "" {
				missing(d.Pos(), d.Name.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				for _, name := range undocumented(d, s) {
					missing(name.Pos(), name.Name)
				}
			}
		}
	}
	return bad
}

// exportedReceiver reports whether d is a function, or a method of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch v := t.(type) {
		case *ast.StarExpr:
			t = v.X
		case *ast.IndexExpr:
			t = v.X
		case *ast.IndexListExpr:
			t = v.X
		case *ast.Ident:
			return v.IsExported()
		default:
			return true
		}
	}
}

// undocumented are the exported names of one spec without a comment: its own, its
// group's, or one at the end of its line.
func undocumented(d *ast.GenDecl, s ast.Spec) []*ast.Ident {
	var names []*ast.Ident
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Doc.Text() == "" && (d.Lparen.IsValid() || d.Doc.Text() == "") {
			names = []*ast.Ident{s.Name}
		}
	case *ast.ValueSpec:
		if s.Doc.Text() == "" && s.Comment.Text() == "" && d.Doc.Text() == "" {
			names = s.Names
		}
	}
	return slices.DeleteFunc(slices.Clone(names), func(n *ast.Ident) bool { return !n.IsExported() })
}

// checkSleep: waits are on files or futexes, with a deadline. A work type may
// sleep: that is its work.
func checkSleep(f *file) []string {
	if f.ast == nil || f.isTest() || f.dir() == "worker" {
		return nil
	}
	var bad []string
	f.imports(func(name, path string, _ token.Pos) {
		if path != "time" {
			return
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if isSelector(n, name, "Sleep") {
				bad = append(bad, fmt.Sprintf("%d: time.Sleep; wait for what is awaited, with a deadline", f.line(n.Pos())))
			}
			return true
		})
	})
	return bad
}

func isSelector(n ast.Node, pkg, name string) bool {
	s, ok := n.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

// checkInit: the binary is /init of a guest, and all that runs before main is
// part of every boot. Function literals are not looked into: sync.OnceValue runs
// its own when it is called.
func checkInit(f *file) []string {
	if f.ast == nil || f.isTest() {
		return nil
	}
	var bad []string
	for _, decl := range f.ast.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				bad = append(bad, fmt.Sprintf("%d: func init runs on every boot; call it where it is needed", f.line(d.Pos())))
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if what := costly(n); what != "" {
					bad = append(bad, fmt.Sprintf("%d: %s at package level runs on every boot; make it local or use sync.OnceValue", f.line(n.Pos()), what))
				}
				_, isFunc := n.(*ast.FuncLit)
				return !isFunc
			})
		}
	}
	return bad
}

// costly names the initialiser that n is, if it is one of the costly kinds.
func costly(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CompositeLit:
		if _, isMap := n.Type.(*ast.MapType); isMap {
			return "a map"
		}
	case *ast.CallExpr:
		s, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			break
		}
		if strings.HasPrefix(s.Sel.Name, "Must") || strings.HasPrefix(s.Sel.Name, "Parse") || isSelector(s, "regexp", s.Sel.Name) {
			return "a call of " + s.Sel.Name
		}
	}
	return ""
}

const maxLines = 600

// checkSize: files are split by noun before they are long.
func checkSize(f *file) []string {
	if n := strings.Count(f.src, "\n"); n > maxLines {
		return []string{fmt.Sprintf("%d: %d lines; split the file by noun, at most %d", n, n, maxLines)}
	}
	return nil
}

// checkErrorText: verb and object, then the cause.
func checkErrorText(f *file) []string {
	if f.ast == nil || f.isTest() {
		return nil
	}
	var bad []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 || !isSelector(call.Fun, "fmt", "Errorf") && !isSelector(call.Fun, "errors", "New") {
			return true
		}
		if text, ok := call.Args[0].(*ast.BasicLit); ok && strings.Contains(text.Value, "failed to") {
			bad = append(bad, fmt.Sprintf("%d: error text %s; write verb, object and cause", f.line(text.Pos()), text.Value))
		}
		return true
	})
	return bad
}
