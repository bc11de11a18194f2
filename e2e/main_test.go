package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/report"
)

// program is the binary under test, built by TestMain.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "guestinit-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "guestinit")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../cmd/guestinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// result is what a run of the program left.
type result struct {
	status         int
	stdout, stderr string
}

// guestinit runs the program; it fails the test if it does not end in time.
func guestinit(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return guestinitEnv(t, nil, stdin, args...)
}

func guestinitEnv(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("guestinit %q: %v, %v\n%s", args, err, ctx.Err(), errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// want checks exit status and text; a failure shows all that the program said.
func (r result) want(t *testing.T, status int, stderr ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("exit status %d, want %d", r.status, status)
	}
	for _, text := range stderr {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error does not say %q", text)
		}
	}
	if t.Failed() {
		t.Logf("standard error:\n%s\nstandard output:\n%.2000s", r.stderr, r.stdout)
	}
}

// report reads the JSON report from standard output.
func (r result) report(t *testing.T) *report.Report {
	t.Helper()
	var rep report.Report
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
		t.Fatalf("the report is no JSON: %v\n%.2000s\n%s", err, r.stdout, r.stderr)
	}
	return &rep
}

// lines are the kernels of the tests: 6.1 has virtio in modules, 6.12 is the
// next Debian's, 7.2 has sched_ext.
var lines = []string{"6.1", "6.12", "7.2"}

// kernelDir is the directory of the newest cached kernel of a line.
func kernelDir(t *testing.T, line string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("boots guests; run without -short")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatal("no QEMU; try: make deps")
	}
	kernels, err := kernel.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kernels {
		if strings.HasPrefix(k.Release, line+".") {
			return k.Dir
		}
	}
	t.Fatalf("no kernel %s in the cache; try: make kernels", line)
	return ""
}

// writeSpec writes a spec file and returns its path.
func writeSpec(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
