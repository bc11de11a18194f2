package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/guestinit/guestinit/initramfs"
)

// TestScenarioInGuest runs the tests of package scenario as PID 1 of a guest,
// where cgroups have all controllers, and with them every spec of examples/.
func TestScenarioInGuest(t *testing.T) { scenarioInGuest(t, "7.2") }

// TestLongScenarioInGuest does it on the other kernels.
func TestLongScenarioInGuest(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes a minute a kernel; try: make check-all")
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) { scenarioInGuest(t, line) })
	}
}

func scenarioInGuest(t *testing.T, line string) {
	examples, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	var files []initramfs.File
	for _, name := range examples {
		files = append(files, initramfs.File{Src: name, Dst: "/examples/" + filepath.Base(name)})
	}
	testsInGuest(t, guestTests{line: line, pkg: "scenario", files: files})
}
