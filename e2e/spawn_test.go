package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/internal/guesttest"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/worker"
)

// spawnDeadline bounds a boot that runs the tests of package spawn.
const spawnDeadline = 10 * time.Minute

// longSkips are the tests that only the long matrix runs, in guests too.
var longSkips = regexp.MustCompile(`--- SKIP: Test[^L]`)

// TestSpawnInGuest runs the tests of package spawn as PID 1 of a guest, where
// all have what they need: root, cgroup v2, and a machine of their own.
func TestSpawnInGuest(t *testing.T) {
	t.Parallel()
	spawnInGuest(t, "7.2")
}

// TestLongSpawnInGuest does it on the other kernels.
func TestLongSpawnInGuest(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes some minutes a kernel; try: make check-all")
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) { spawnInGuest(t, line) })
	}
}

// spawnInGuest boots one kernel with the tests of package spawn as /init.
func spawnInGuest(t *testing.T, line string) { testsInGuest(t, guestTests{line: line, pkg: "spawn"}) }

// TestWidthsInGuest runs alu_hot in all its widths on CPUs that have more vector
// registers and fewer: what ran is in the report, and is what the CPU has.
func TestWidthsInGuest(t *testing.T) {
	for cpu, widest := range map[string]string{"max": "256", "max,-avx2": "128", "Nehalem": "128"} {
		t.Run(cpu, func(t *testing.T) {
			console := testsInGuest(t, guestTests{line: "6.12", pkg: "spawn", run: "^TestVectorNote$", cpu: cpu})
			for _, want := range []string{"width widest ran " + widest, "width vec128 ran 128", "width vec512 is not to be had here, ran " + widest, "width amx is not to be had here, ran " + widest} {
				if !strings.Contains(console, want+" bits") {
					t.Errorf("the tests do not say %q:\n%s", want, console)
				}
			}
		})
	}
}

// TestLongTypesInGuest runs the table of all work types on every kernel, each in
// all its modes, with the bound on stops.
func TestLongTypesInGuest(t *testing.T) {
	if os.Getenv("GUESTINIT_LONG") == "" {
		t.Skip("takes a minute a kernel; try: make check-all")
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			console := testsInGuest(t, guestTests{line: line, pkg: "spawn", run: "^TestEveryTypeReports$"})
			var stops []time.Duration
			for _, m := range stopLine.FindAllStringSubmatch(console, -1) {
				took, err := time.ParseDuration(m[1])
				if err != nil {
					t.Fatal(err)
				}
				stops = append(stops, took)
			}
			if len(stops) < 2*len(worker.Types) {
				t.Fatalf("%d stops of %d types:\n%s", len(stops), len(worker.Types), console)
			}
			t.Logf("%d stops, the longest took %v", len(stops), slices.Max(stops))
		})
	}
}

// stopLine is what the table says of every stop.
var stopLine = regexp.MustCompile(`stopping took ([^,\s]+)`)

// guestTests are tests of a package as /init of a guest.
type guestTests struct {
	line  string // of the kernel
	pkg   string
	run   string           // which of them, as -test.run; empty is all
	cpu   string           // QEMU's model; empty is the one of every run
	files []initramfs.File // beside /init
}

// testsInGuest boots the tests, and returns what they say.
func testsInGuest(t *testing.T, g guestTests) string {
	dir := kernelDir(t, g.line)
	init := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", init, "../"+g.pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", g.pkg, err, out)
	}
	words := "-test.v -test.timeout=9m"
	if g.run != "" {
		words += " -test.run=" + g.run
	}
	console := bootInit(t, dir, init, words, g)
	if !strings.Contains(console, g.pkg+" tests: exit 0") || !strings.Contains(console, "--- PASS: Test") || longSkips.MatchString(console) {
		t.Errorf("the tests of %s fail on %s:\n%s", g.pkg, g.line, guesttest.Blame(console))
	}
	return console
}

// bootInit boots a program as /init with words as its arguments, and returns
// what it says on the console.
func bootInit(t *testing.T, kernelDir, init, words string, g guestTests) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), spawnDeadline)
	defer cancel()
	k, err := kernel.Open(kernelDir, "")
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux()
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.Create(filepath.Join(t.TempDir(), "initrd.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if _, err := initramfs.Build(image, initramfs.Options{Init: init, Kernel: k, Features: []string{}, Files: g.files}); err != nil {
		t.Fatal(err)
	}
	version, err := qemu.ProbeVersion(ctx, qemu.DefaultBinary)
	if err != nil {
		t.Fatal(err)
	}
	accel, err := qemu.NewAccelerator(qemu.TCG, "", version)
	if err != nil {
		t.Fatal(err)
	}
	if g.cpu != "" {
		accel.CPU = g.cpu
	}
	var console strings.Builder
	config := qemu.Config{Kernel: vmlinux, Initrd: image.Name(), Accel: accel, MemoryMiB: 1024,
		Append: qemu.BaseAppend + " -- " + words}
	vm, err := qemu.Start(ctx, config, qemu.Options{Console: []io.Writer{&console}})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	select {
	case <-vm.Done():
	case <-ctx.Done():
		vm.Kill()
		t.Errorf("the guest did not end in %v: %s", spawnDeadline, config.Command())
	}
	return console.String()
}
