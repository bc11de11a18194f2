package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/mkuimage/uimage/initramfs"
	"github.com/u-root/uio/llog"
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

// TestURootImage boots an image that u-root's own builder made, as
// `u-root -files guestinit:bbin/guestinit -initcmd=/bbin/guestinit` does.
func TestURootImage(t *testing.T) {
	image := filepath.Join(t.TempDir(), "uroot.cpio")
	if err := uimage.Create(llog.Test(t),
		uimage.WithReplaceEnv(golang.Default(golang.DisableCGO())),
		uimage.WithTempDir(t.TempDir()),
		uimage.WithBaseArchive(uimage.DefaultRamfs()),
		uimage.WithFiles(program+":bbin/guestinit"),
		uimage.WithInit("/bbin/guestinit"),
		uimage.WithOutput(&initramfs.CPIOFile{Path: image}),
	); err != nil {
		t.Fatal(err)
	}
	r := guestinit(t, "", "run", "--kernel", kernelDir(t, "6.12"), "--dry-run", writeSpec(t, shortSpec))
	r.want(t, 0)
	_, words, _ := strings.Cut(r.stdout, "guestinit.spec=")
	words, _, _ = strings.Cut(words, "'")
	console := bootByHand(t, "6.12", image, "guestinit.link=none guestinit.spec="+words)
	for _, want := range []string{"guestinit: start", "spin_wait", "guestinit: done status=0"} {
		if !strings.Contains(console, want) {
			t.Errorf("the console does not show %q:\n%s", want, console)
		}
	}
}
