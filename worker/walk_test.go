package worker

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/worker/walktest"
)

const program = "github.com/guestinit/guestinit/cmd/guestinit"

// entryPoints are where tasks begin: births, work loops and signal handlers.
func entryPoints() []string {
	names := []string{
		"github.com/guestinit/guestinit/worker.ProcessMain",
		"github.com/guestinit/guestinit/worker.ThreadMain",
		"github.com/guestinit/guestinit/worker.MemberMain",
		"github.com/guestinit/guestinit/worker.ContainerMain",
		"github.com/guestinit/guestinit/internal/bare.stopHandler",
		"github.com/guestinit/guestinit/internal/bare.faultHandler",
		"github.com/guestinit/guestinit/internal/bare.threadFaultHandler",
		"github.com/guestinit/guestinit/internal/bare.sigreturn",
		"github.com/guestinit/guestinit/internal/bare.noopHandler",
	}
	for i := range Types {
		names = append(names, walktest.Name(Types[i].loop))
	}
	return names
}

// TestWorkersStayOutOfTheRuntime walks the machine code of the program that
// ships, from every entry point along every call.
func TestWorkersStayOutOfTheRuntime(t *testing.T) {
	code := loadCode(t)
	for _, entry := range entryPoints() {
		for _, fault := range code.Walk(entry) {
			t.Error(fault)
		}
	}
	if n := len(code.Functions()); n < 30 {
		t.Errorf("the walk saw %d functions only; it does not reach the workers", n)
	}
}

// TestVectorBodiesAreReal decodes the bodies of alu_hot: each multiplies in
// registers of its width, and all are part of the walk.
func TestVectorBodiesAreReal(t *testing.T) {
	code := loadCode(t)
	code.Walk(entryOf("alu_hot"))
	seen := code.Functions()
	for name, want := range map[string]string{"aluVec128": "PMULUDQ X0", "aluVec256": "VPMULUDQ Y0", "aluVec512": "VPMULUDQ Z0"} {
		name = "github.com/guestinit/guestinit/worker." + name
		if !slices.Contains(seen, name) {
			t.Errorf("the walk from alu_hot does not reach %s", name)
		}
		text, err := code.Disassemble(name)
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%s has no %s: %v\n%s", name, want, err, text)
		}
	}
}

func entryOf(typ string) string { return walktest.Name(Types[slices.Index(Names(), typ)].loop) }

// TestWalkFindsViolations walks ordinary Go code, which does all that workers
// must not.
func TestWalkFindsViolations(t *testing.T) {
	code := loadCode(t)
	faults := strings.Join(code.Walk("fmt.Fprintf"), "\n")
	for _, want := range []string{"calls through a register", "runtime.", "fmt.Fprintf → "} {
		if !strings.Contains(faults, want) {
			t.Errorf("the walk from fmt.Fprintf does not report %q", want)
		}
	}
	if faults := code.Walk("no.such.function"); len(faults) != 1 || !strings.Contains(faults[0], "no such function") {
		t.Errorf("a missing entry point gives %q", faults)
	}
}

// loadCode builds the program that ships and reads its code.
func loadCode(t *testing.T) *walktest.Code {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the walk decodes amd64; run it there, the sources are the same")
	}
	bin := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", bin, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	code, err := walktest.Load(bin)
	if err != nil {
		t.Fatal(err)
	}
	return code
}
