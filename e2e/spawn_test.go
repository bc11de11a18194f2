package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
)

// spawnDeadline bounds a boot that runs the tests of package spawn.
const spawnDeadline = 10 * time.Minute

// longSkips are the tests that only the long matrix runs, in guests too.
var longSkips = regexp.MustCompile(`--- SKIP: Test[^L]`)

// TestSpawnInGuest runs the tests of package spawn as PID 1 of a guest, where
// all have what they need: root, cgroup v2, and a machine of their own.
func TestSpawnInGuest(t *testing.T) {
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
func spawnInGuest(t *testing.T, line string) { testsInGuest(t, line, "spawn", nil) }

// testsInGuest boots one kernel with the tests of a package as /init, and files
// beside it.
func testsInGuest(t *testing.T, line, pkg string, files []initramfs.File) {
	dir := kernelDir(t, line)
	init := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", init, "../"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	console := bootInit(t, dir, init, "-test.v -test.timeout=9m", files)
	if !strings.Contains(console, pkg+" tests: exit 0") || longSkips.MatchString(console) {
		t.Errorf("the tests of %s fail on %s:\n%s", pkg, line, console)
	}
}

// bootInit boots a program as /init with words as its arguments, and returns
// what it says on the console.
func bootInit(t *testing.T, kernelDir, init, words string, files []initramfs.File) string {
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
	if _, err := initramfs.Build(image, initramfs.Options{Init: init, Kernel: k, Features: []string{}, Files: files}); err != nil {
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
	var console strings.Builder
	config := qemu.Config{Kernel: vmlinux, Initrd: image.Name(), Accel: accel, MemoryMiB: 1024,
		Append: "console=ttyS0 quiet panic=-1 cryptomgr.notests=1 tsc=reliable -- " + words}
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
