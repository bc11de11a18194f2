package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bootByHand boots an image as somebody does who knows QEMU and has packed it,
// and returns the console.
func bootByHand(t *testing.T, line, image, words string) string {
	t.Helper()
	dir := kernelDir(t, line)
	r := guestinit(t, shortSpec, "run", "--kernel", dir, "--accel", "tcg", "--dry-run", "-")
	r.want(t, 0)
	command := strings.TrimSpace(r.stdout)
	before, after, ok := strings.Cut(command, " -initrd ")
	if !ok {
		t.Fatalf("the dry run prints %q", command)
	}
	_, after, _ = strings.Cut(after, " ")
	// Without the host link's socket, and with its own command line.
	fields := []string{before, "-initrd", image, "-append", "'console=ttyS0 quiet panic=-1 " + words + "'",
		"-nodefaults", "-no-user-config", "-display none -no-reboot -serial stdio"}
	if !strings.Contains(after, "-serial stdio") {
		t.Errorf("the dry run prints %q", command)
	}
	cmd := exec.Command("timeout", "60", "sh", "-c", strings.Join(fields, " "))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// TestPackedImage boots an image of `guestinit pack` with its spec inside.
func TestPackedImage(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "initrd.img")
	guestinit(t, shortSpec, "pack", "-o", image, "--kernel", kernelDir(t, "6.1"), "--spec", "-", "--compression", "zstd").want(t, 0)
	console := bootByHand(t, "6.1", image, "guestinit.link=none guestinit.spec=image")
	for _, want := range []string{"guestinit: start", "PASS", "spin_wait", "guestinit: done status=0"} {
		if !strings.Contains(console, want) {
			t.Errorf("the console does not show %q:\n%s", want, console)
		}
	}
}

// TestShellTwin boots an image of scripts/mkinitrd.sh.
func TestShellTwin(t *testing.T) {
	dir := t.TempDir()
	image, spec := filepath.Join(dir, "initrd.img"), filepath.Join(dir, "spec.json")
	const json = `{"version":1,"duration":"300ms","groups":[{"workers":1,"work":{"type":"yield_heavy"}}]}`
	if err := os.WriteFile(spec, []byte(json), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("../scripts/mkinitrd.sh", "-o", image, "-i", program, "-k", kernelDir(t, "6.1"), "-s", spec)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if console := bootByHand(t, "6.1", image, "guestinit.link=none guestinit.spec=image"); !strings.Contains(console, "yield_heavy") || !strings.Contains(console, "done status=0") {
		t.Errorf("the console shows\n%s", console)
	}
}
