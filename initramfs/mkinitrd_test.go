package initramfs

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const mkinitrd = "../scripts/mkinitrd.sh"

// runMkinitrd runs the script and returns the image it writes.
func runMkinitrd(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	cmd := exec.Command(mkinitrd, append([]string{"-o", out}, args...)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, msg)
	}
	return os.ReadFile(out)
}

func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed; try: apt install cpio zstd gzip shellcheck", name)
		}
	}
}

// TestMkinitrd checks that the script makes the image that Build makes.
func TestMkinitrd(t *testing.T) {
	needTools(t, "cpio", "zstd", "gzip")
	o := someOptions(t)
	spec := writeFile(t, filepath.Join(t.TempDir(), "spec"), o.Spec, 0o600)
	args := []string{"-i", o.Init, "-m", o.Kernel.Modules, "-s", spec}
	for _, f := range o.Files {
		args = append(args, "-f", f.Src+":"+f.Dst)
	}
	if _, err := exec.Command("ldd", "/bin/sh").Output(); err == nil {
		o.Files = append(o.Files, File{Src: "/bin/sh"})
		args = append(args, "-f", "/bin/sh")
	}
	for _, features := range [][]string{nil, {"vsock"}} {
		o.Features = features
		want, _ := mustBuild(t, o)
		got, err := runMkinitrd(t, append(slices.Clone(args), features...)...)
		if err != nil {
			t.Fatal(err)
		}
		wantSameEntries(t, got, want)
		again, err := runMkinitrd(t, append(slices.Clone(args), features...)...)
		if err != nil || !bytes.Equal(got, again) {
			t.Errorf("same inputs, different bytes; %v", err)
		}
	}
}

func wantSameEntries(t *testing.T, got, want []byte) {
	t.Helper()
	names, ours := readArchive(t, got)
	_, theirs := readArchive(t, want)
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if ours[name] != theirs[name] {
			t.Errorf("%s: script makes %.100v, Build %.100v", name, ours[name], theirs[name])
		}
	}
	for _, name := range names {
		if _, ok := theirs[name]; !ok {
			t.Errorf("%s: only the script makes it", name)
		}
	}
	wantParentsFirst(t, names)
	if last := names[len(names)-1]; "/"+last != CompletePath {
		t.Errorf("last entry is %s, want %s", last, CompletePath)
	}
}

func TestMkinitrdErrors(t *testing.T) {
	needTools(t, "cpio", "zstd", "gzip")
	init := makeInit(t)
	broken := moduleTree(t, map[string][]byte{"kernel/virtio/virtio_ring.ko": nil})
	for _, tt := range []struct {
		name string
		args []string
		err  string
	}{
		{"missing module", []string{"-i", init, "-m", broken.Modules}, "module virtio_ring, which virtio needs"},
		{"unknown feature", []string{"-i", init, "9p"}, "feature 9p is not known"},
		{"compression", []string{"-i", init, "-c", "rar"}, "compression rar is not known"},
		{"missing file", []string{"-i", init, "-f", "/nothing"}, "/nothing"},
		{"kernel without modules", []string{"-i", init, "-k", t.TempDir()}, "no lib/modules"},
		{"unknown flag", []string{"-x"}, "Usage"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := runMkinitrd(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestMkinitrdShellcheck(t *testing.T) {
	needTools(t, "shellcheck")
	if out, err := exec.Command("shellcheck", mkinitrd).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestMkinitrdWords checks what the script says before it makes anything.
func TestMkinitrdWords(t *testing.T) {
	yaml := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(yaml, []byte("version: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--help"}, 0, "Usage: mkinitrd.sh -o FILE"},
		{nil, 2, "Usage: mkinitrd.sh -o FILE"},
		{[]string{"-o", filepath.Join(t.TempDir(), "image"), "-i", "/bin/true", "-s", yaml}, 1, "spec " + yaml + " is no JSON; guestinit pack takes YAML too"},
	} {
		cmd := exec.Command(mkinitrd, tt.args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != tt.status || !strings.Contains(string(out), tt.want) {
			t.Errorf("%q: status %d, want %d with %q:\n%s", tt.args, got, tt.status, tt.want, out)
		}
	}
}
