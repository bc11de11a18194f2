package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCheckGo has Go of several versions.
func TestCheckGo(t *testing.T) {
	m := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "go.mod"))
	if m == nil {
		t.Fatal("go.mod wants no version")
	}
	want := m[1]
	for _, tt := range []struct {
		name, says string
		ok         bool
	}{
		{"as wanted", "go version go" + want + " linux/amd64", true},
		{"newer", "go version go99.1 linux/arm64", true},
		{"experiments", "go version go" + want + " X:nodwarf5 linux/amd64", true},
		{"development", "go version devel go1.99-abcdef linux/amd64", true},
		{"Debian 12", "go version go1.19.8 linux/amd64", false},
		{"first of its line", "go version go1.26 linux/amd64", want == "1.26"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := filepath.Join(t.TempDir(), "go")
			if err := os.WriteFile(fake, fmt.Appendf(nil, "#!/bin/sh\necho '%s'\n", tt.says), 0o755); err != nil {
				t.Fatal(err)
			}
			checkGo(t, fake, tt.ok, want)
		})
	}
	t.Run("none", func(t *testing.T) { checkGo(t, filepath.Join(t.TempDir(), "go"), false, want) })
}

func checkGo(t *testing.T, program string, ok bool, want string) {
	t.Helper()
	out, err := exec.Command("../scripts/check-go.sh", program).CombinedOutput()
	if (err == nil) != ok {
		t.Errorf("%v: %s", err, out)
	}
	if !ok && (!strings.Contains(string(out), want) || !strings.Contains(string(out), "https://go.dev/dl/")) {
		t.Errorf("%q lacks the version or the remedy", out)
	}
}

// TestTools checks that `make deps` brings every program that a test would be
// skipped without, so that in CI none is.
func TestTools(t *testing.T) {
	m := regexp.MustCompile(`(?m)^TOOLS := (.*)$`).FindStringSubmatch(read(t, "Makefile"))
	if m == nil {
		t.Fatal("Makefile has no TOOLS")
	}
	tools := strings.Fields(m[1])
	// What every Debian has.
	tools = append(tools, "gzip", "sleep")
	out, err := exec.Command("git", "-C", root, "ls-files", "*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`(?:LookPath\(|needTools\(t, )((?:"[^"]+"(?:, )?)+)\)`)
	wanted := map[string]string{}
	for _, file := range strings.Fields(string(out)) {
		for _, m := range calls.FindAllStringSubmatch(read(t, file), -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				wanted[strings.Trim(name, `"`)] = file
			}
		}
	}
	for _, name := range []string{"cpio", "qemu-system-x86_64", "shellcheck"} {
		if wanted[name] == "" {
			t.Errorf("no test looks for %s: the search is wrong", name)
		}
	}
	for name, file := range wanted {
		if !slices.Contains(tools, name) {
			t.Errorf("%s looks for %s, which make deps does not bring", file, name)
		}
	}
}

// TestDemoKernel checks that make demo boots the kernel that a fetch gets, not
// the newest in somebody's cache.
func TestDemoKernel(t *testing.T) {
	cmd := exec.Command("make", "-n", "demo")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"kernel fetch)", `run --kernel "$kernel" examples/quickstart.yaml`, "check-go.sh", "install-tools.sh"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("make demo does not do %q:\n%s", want, out)
		}
	}
}

// TestScriptCompressions packs an image in every way that mkinitrd.sh knows.
func TestScriptCompressions(t *testing.T) {
	for _, tool := range []string{"cpio", "gzip", "lz4", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%v; try: make deps", err)
		}
	}
	for compression, magic := range map[string]string{
		"none": "070701", "gzip": "\x1f\x8b", "lz4": "\x02\x21\x4c\x18", "zstd": "\x28\xb5\x2f\xfd",
	} {
		image := filepath.Join(t.TempDir(), "image")
		cmd := exec.Command("../scripts/mkinitrd.sh", "-o", image, "-i", "/bin/sh", "-c", compression, "serial")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", compression, err, out)
			continue
		}
		if data, err := os.ReadFile(image); err != nil || !strings.HasPrefix(string(data), magic) {
			t.Errorf("%s: %v, begins with %q", compression, err, data[:min(len(data), 8)])
		}
	}
}
