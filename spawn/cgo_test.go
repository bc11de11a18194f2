package spawn

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoWorkersBesideCgo builds a program with the C library, which is told why it
// gets no workers.
func TestNoWorkersBesideCgo(t *testing.T) {
	if os.Getpid() == 1 {
		return // a guest has no compilers
	}
	dir, err := os.MkdirTemp("testdata", "cgo-") // in the module, to import it
	if os.IsNotExist(err) {
		if err = os.Mkdir("testdata", 0o755); err == nil {
			defer os.Remove("testdata")
			dir, err = os.MkdirTemp("testdata", "cgo-")
		}
	}
	if err != nil {
		t.Skip(err) // no sources here
	}
	defer os.RemoveAll(dir)
	const source = `package main

import (
	"fmt"
	_ "runtime/cgo"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

func main() {
	_, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{{Workers: 1, Work: spec.Work{Type: "spin_wait"}}}})
	fmt.Println(err)
}
`
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "./"+dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "C compiler") {
		t.Skipf("no C compiler to build with cgo: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "build it with CGO_ENABLED=0") {
		t.Errorf("the program says %s, %v", out, err)
	}
}
