package walktest

import (
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// Code is the text of a program and its functions in order of address.
type Code struct {
	text  []byte
	base  uint64
	funcs []function
	seen  map[string]bool

	runtime, indirect map[string]string // what is allowed, with reasons
}

type function struct {
	name       string
	start, end uint64
}

// StaysOut fails the test for each way from the functions into the Go runtime, with
// the chain of calls that leads there. They are top-level functions of the program
// that the test is part of. On other machines than amd64 the test is skipped: the
// sources are the same.
func StaysOut(t testing.TB, functions ...any) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the walk decodes amd64; run it there, the sources are the same")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := Load(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range functions {
		for _, fault := range code.Walk(Name(f)) {
			t.Error(fault)
		}
	}
}

// Name is the name of a function as its program has it.
func Name(f any) string { return runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name() }

// Load reads the code of a program for amd64. It needs no symbol table: the
// table of the Go runtime serves as well.
func Load(path string) (*Code, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := f.Section(".text")
	if text == nil || f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("read code of %s: no program for amd64", path)
	}
	c := &Code{base: text.Addr, seen: make(map[string]bool), runtime: allowedRuntime(), indirect: allowedIndirect()}
	if c.text, err = text.Data(); err != nil {
		return nil, fmt.Errorf("read code of %s: %w", path, err)
	}
	if err := c.symbols(f); err != nil {
		return nil, fmt.Errorf("read functions of %s: %w", path, err)
	}
	sort.Slice(c.funcs, func(i, j int) bool { return c.funcs[i].start < c.funcs[j].start })
	return c, nil
}

// symbols reads the functions from the symbol table, or from the table that the
// runtime prints stacks with if there is none.
func (c *Code) symbols(f *elf.File) error {
	symbols, err := f.Symbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		return c.runtimeSymbols(f)
	}
	if err != nil {
		return err
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			c.add(strings.TrimSuffix(s.Name, ".abi0"), s.Value, s.Value+s.Size)
		}
	}
	return nil
}

func (c *Code) runtimeSymbols(f *elf.File) error {
	section := f.Section(".gopclntab")
	if section == nil {
		return errors.New("neither symbols nor a .gopclntab; is it a Go program?")
	}
	data, err := section.Data()
	if err != nil {
		return err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, c.base))
	if err != nil {
		return err
	}
	for i := range table.Funcs {
		c.add(table.Funcs[i].Name, table.Funcs[i].Entry, table.Funcs[i].End)
	}
	return nil
}

func (c *Code) add(name string, start, end uint64) {
	if start < end && start >= c.base && end <= c.base+uint64(len(c.text)) {
		c.funcs = append(c.funcs, function{name, start, end})
	}
}

// Functions lists the functions that walks have come through.
func (c *Code) Functions() []string {
	var names []string
	for _, f := range c.funcs {
		if c.seen[f.key()] {
			names = append(names, f.name)
		}
	}
	return names
}

// Disassemble is the code of a function, an instruction a line. Where an assembly
// function also has a wrapper of the same name, it is the longer of both.
func (c *Code) Disassemble(name string) (string, error) {
	var found function
	for _, f := range c.funcs {
		if f.name == name && f.end-f.start > found.end-found.start {
			found = f
		}
	}
	if found.name == "" {
		return "", fmt.Errorf("no such function: %s", name)
	}
	var b strings.Builder
	for addr := found.start; addr < found.end; {
		inst, err := x86asm.Decode(c.text[addr-c.base:found.end-c.base], 64)
		if err != nil {
			return "", fmt.Errorf("%s has an instruction at %#x that cannot be decoded: %w", name, addr, err)
		}
		b.WriteString(inst.String() + "\n")
		addr += uint64(inst.Len)
	}
	return b.String(), nil
}

func (f *function) key() string { return fmt.Sprintf("%s@%x", f.name, f.start) }

// at is the function that holds an address.
func (c *Code) at(addr uint64) (function, bool) {
	i := sort.Search(len(c.funcs), func(i int) bool { return c.funcs[i].end > addr })
	if i == len(c.funcs) || c.funcs[i].start > addr {
		return function{}, false
	}
	return c.funcs[i], true
}

// Walk follows all calls from the function and returns what it must not do, each
// with the chain of callers that leads there.
func (c *Code) Walk(entry string) []string {
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

func (c *Code) follow(f function, chain []string, faults *[]string) {
	key := f.key()
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

func (c *Code) branch(f function, inst x86asm.Inst, next uint64, chain []string, report func(string), faults *[]string) {
	rel, direct := inst.Args[0].(x86asm.Rel)
	if !direct {
		// An indirect jump is a switch's jump table: it stays in the function.
		if inst.Op == x86asm.CALL && c.indirect[f.name] == "" {
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
		if c.runtime[callee.name] == "" {
			report("→ " + callee.name + ", which is the Go runtime's and not allowed outside it")
		}
	default:
		c.follow(callee, chain, faults)
	}
}
