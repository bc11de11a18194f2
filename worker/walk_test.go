package worker

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

const program = "github.com/guestinit/guestinit/cmd/guestinit"

// allowedRuntime are the symbols of the Go runtime that code outside it may
// call, with the reason.
var allowedRuntime = map[string]string{
	"runtime.memmove":                "assembly, touches only its arguments and CPU feature flags",
	"runtime.memclrNoHeapPointers":   "assembly, as memmove",
	"runtime.memequal":               "assembly, as memmove",
	"runtime.duffzero":               "assembly, writes zeros",
	"runtime.duffcopy":               "assembly, copies",
	"runtime.morestack":              "a full stack: faults on the zero g, and is reported as a stack overflow",
	"runtime.morestack_noctxt":       "as morestack",
	"runtime.panicBounds":            "a bounds check that failed: faults on the zero g, and is reported as a panic",
	"runtime.panicIndex":             "as panicBounds",
	"runtime.panicdivide":            "as panicBounds",
	"runtime.panicshift":             "as panicBounds",
	"runtime.panicunsafeslicelen":    "as panicBounds",
	"runtime.panicunsafeslicenilptr": "as panicBounds",
}

// allowedIndirect are the functions that may call through a register, with what
// they call.
var allowedIndirect = map[string]string{
	"github.com/guestinit/guestinit/internal/bare.callC":     "the vDSO",
	"github.com/guestinit/guestinit/internal/bare.cloneTask": "the first function of a new task, each of which is an entry point of the walk",
	"github.com/guestinit/guestinit/worker.(*Slab).run":      "a loop of Types, each of which is an entry point of the walk",
}

// entryPoints are where tasks begin: births, work loops and signal handlers.
func entryPoints() []string {
	names := []string{
		"github.com/guestinit/guestinit/worker.ProcessMain",
		"github.com/guestinit/guestinit/worker.ThreadMain",
		"github.com/guestinit/guestinit/worker.MemberMain",
		"github.com/guestinit/guestinit/worker.ContainerMain",
		"github.com/guestinit/guestinit/internal/bare.stopHandler",
		"github.com/guestinit/guestinit/internal/bare.faultHandler",
		"github.com/guestinit/guestinit/internal/bare.sigreturn",
		"github.com/guestinit/guestinit/internal/bare.noopHandler",
	}
	for i := range Types {
		names = append(names, runtime.FuncForPC(reflect.ValueOf(Types[i].loop).Pointer()).Name())
	}
	return names
}

// TestWorkersStayOutOfTheRuntime walks the machine code of the program that
// ships, from every entry point along every call.
func TestWorkersStayOutOfTheRuntime(t *testing.T) {
	code := loadCode(t, program)
	for _, entry := range entryPoints() {
		for _, fault := range code.walk(entry) {
			t.Error(fault)
		}
	}
	if n := len(code.seen); n < 30 {
		t.Errorf("the walk saw %d functions only; it does not reach the workers", n)
	}
}

// TestVectorBodiesAreReal decodes the bodies of alu_hot: each multiplies in
// registers of its width, and all are part of the walk.
func TestVectorBodiesAreReal(t *testing.T) {
	code := loadCode(t, program)
	code.walk(entryOf("alu_hot"))
	for name, want := range map[string]string{"aluVec128": "PMULUDQ X0", "aluVec256": "VPMULUDQ Y0", "aluVec512": "VPMULUDQ Z0"} {
		f, ok := code.named("github.com/guestinit/guestinit/worker." + name)
		if !ok || !code.seen[fmt.Sprintf("%s@%x", f.name, f.start)] {
			t.Errorf("the walk from alu_hot does not reach %s", name)
			continue
		}
		var text []string
		for addr := f.start; addr < f.end; {
			inst, err := x86asm.Decode(code.text[addr-code.base:f.end-code.base], 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			text = append(text, inst.String())
			addr += uint64(inst.Len)
		}
		if all := strings.Join(text, "\n"); !strings.Contains(all, want) {
			t.Errorf("%s has no %s:\n%s", name, want, all)
		}
	}
}

func entryOf(typ string) string {
	i := slices.Index(Names(), typ)
	return runtime.FuncForPC(reflect.ValueOf(Types[i].loop).Pointer()).Name()
}

// named is the function of a name that has a body of its own: an assembly
// function also has a wrapper under the same name.
func (c *code) named(name string) (function, bool) {
	var found function
	for _, f := range c.funcs {
		if f.name == name && f.end-f.start > found.end-found.start {
			found = f
		}
	}
	return found, found.name != ""
}

// TestWalkFindsViolations walks ordinary Go code, which does all that workers
// must not.
func TestWalkFindsViolations(t *testing.T) {
	code := loadCode(t, program)
	faults := strings.Join(code.walk("fmt.Fprintf"), "\n")
	for _, want := range []string{"calls through a register", "runtime.", "fmt.Fprintf → "} {
		if !strings.Contains(faults, want) {
			t.Errorf("the walk from fmt.Fprintf does not report %q", want)
		}
	}
	if faults := code.walk("no.such.function"); len(faults) != 1 || !strings.Contains(faults[0], "no such function") {
		t.Errorf("a missing entry point gives %q", faults)
	}
}

// code is the text of a program and its functions in order of address.
type code struct {
	text  []byte
	base  uint64
	funcs []function
	seen  map[string]bool
}

type function struct {
	name       string
	start, end uint64
}

func loadCode(t *testing.T, pkg string) *code {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the walk decodes amd64; run it there, the sources are the same")
	}
	bin := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", bin, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := f.Section(".text")
	data, err := text.Data()
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	c := &code{text: data, base: text.Addr, seen: make(map[string]bool)}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Size > 0 && s.Value >= text.Addr && s.Value+s.Size <= text.Addr+uint64(len(data)) {
			c.funcs = append(c.funcs, function{name: strings.TrimSuffix(s.Name, ".abi0"), start: s.Value, end: s.Value + s.Size})
		}
	}
	sort.Slice(c.funcs, func(i, j int) bool { return c.funcs[i].start < c.funcs[j].start })
	return c
}

// at is the function that holds an address.
func (c *code) at(addr uint64) (function, bool) {
	i := sort.Search(len(c.funcs), func(i int) bool { return c.funcs[i].end > addr })
	if i == len(c.funcs) || c.funcs[i].start > addr {
		return function{}, false
	}
	return c.funcs[i], true
}

// walk follows all calls from the function and returns what it must not do, each
// with the chain of callers that leads there.
func (c *code) walk(entry string) []string {
	found := false
	var faults []string
	for _, f := range c.funcs {
		if f.name == entry {
			found = true
			c.follow(f, []string{}, &faults)
		}
	}
	if !found {
		return []string{fmt.Sprintf("no such function: %s", entry)}
	}
	return faults
}

func (c *code) follow(f function, chain []string, faults *[]string) {
	key := fmt.Sprintf("%s@%x", f.name, f.start)
	if c.seen[key] {
		return
	}
	c.seen[key] = true
	chain = append(slices.Clone(chain), f.name)
	report := func(what string) { *faults = append(*faults, strings.Join(chain, " → ")+" "+what) }
	for addr := f.start; addr < f.end; {
		inst, err := x86asm.Decode(c.text[addr-c.base:f.end-c.base], 64)
		if err != nil {
			report(fmt.Sprintf("has an instruction at %#x that cannot be decoded: %v", addr, err))
			return
		}
		next := addr + uint64(inst.Len)
		if inst.Op == x86asm.CALL || inst.Op == x86asm.JMP {
			c.branch(f, inst, next, chain, report, faults)
		}
		addr = next
	}
}

func (c *code) branch(f function, inst x86asm.Inst, next uint64, chain []string, report func(string), faults *[]string) {
	rel, direct := inst.Args[0].(x86asm.Rel)
	if !direct {
		// An indirect jump is a switch's jump table: it stays in the function.
		if inst.Op == x86asm.CALL && allowedIndirect[f.name] == "" {
			report("calls through a register")
		}
		return
	}
	target := next + uint64(int64(rel))
	if target >= f.start && target < f.end && inst.Op == x86asm.JMP {
		return
	}
	callee, ok := c.at(target)
	switch {
	case !ok:
		report(fmt.Sprintf("calls %#x, which no symbol covers", target))
	case strings.HasPrefix(callee.name, "runtime.") || strings.HasPrefix(callee.name, "internal/runtime"):
		if allowedRuntime[callee.name] == "" {
			report("→ " + callee.name + ", which is the Go runtime's and not allowed outside it")
		}
	default:
		c.follow(callee, chain, faults)
	}
}
