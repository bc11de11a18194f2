package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/vsock"
)

// vmDeadline bounds one boot of a test; under TCG on a busy machine it takes
// some seconds.
const vmDeadline = 3 * time.Minute

// vmCase is a boot of the test binary as /init.
type vmCase struct {
	args    []string // to the kernel command line
	noLink  bool     // the machine has no port
	vsock   bool     // the image is for a vsock
	noSpec  bool     // the host has no spec
	spec    []byte   // what it has; default vmSpec("ok")
	image   initramfs.Options
	cut     bool // the image loses its last entry
	memory  int
	console []string // lines it must bring, in parts
}

// vmResult is what came of it.
type vmResult struct {
	out     vsock.Outcome
	err     error // of Serve
	rep     *report.Report
	exit    qemu.Exit
	console string
}

// testKernels returns the kernels to boot, and skips where there are none.
func testKernels(t *testing.T) []*kernel.Kernel {
	t.Helper()
	if testing.Short() {
		t.Skip("boots guests; run without -short")
	}
	if _, err := exec.LookPath(qemu.DefaultBinary); err != nil {
		t.Skipf("%v; try: apt install qemu-system-x86", err)
	}
	list, err := kernel.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Skip("no kernel in the cache; try: guestinit kernel fetch")
	}
	return list
}

// newest returns one kernel, for tests that are not about kernels.
func newest(t *testing.T) *kernel.Kernel {
	list := testKernels(t)
	return list[0] // the newest comes first
}

// staticSelf returns the path of a static build of this test binary: itself, or
// one made for the purpose where the host's C library came in.
func staticSelf(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) == 0 {
		return self
	}
	static, err := buildStatic()
	if err != nil {
		t.Fatal(err)
	}
	return static
}

// buildStatic builds the test binary once per run of the tests.
var buildStatic = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "guest-test-")
	if err != nil {
		return "", err
	}
	staticDir = dir
	cmd := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", filepath.Join(dir, "init"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build static test binary: %w\n%s", err, out)
	}
	return filepath.Join(dir, "init"), nil
})

// staticDir is what TestMain removes.
var staticDir string

// bootVM boots one guest and takes its report.
func bootVM(t *testing.T, k *kernel.Kernel, c vmCase) vmResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vmDeadline)
	defer cancel()
	vmlinux, err := k.Vmlinux()
	if err != nil {
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
	args := append([]string{qemu.BaseAppend}, c.args...)
	config := qemu.Config{
		Kernel: vmlinux, Initrd: buildImage(t, k, c), Append: strings.Join(args, " "), MemoryMiB: c.memory, CPUs: 2, Accel: accel,
	}
	if !c.noLink {
		config.Link = "link"
	}
	vm, err := qemu.Start(ctx, config, qemu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	var res vmResult
	if !c.noLink {
		defer vm.Link().Close()
		var sent bytes.Buffer
		h := vsock.HostHandler{Report: &sent, Silence: vmDeadline, Spec: func() []byte {
			if c.noSpec {
				return nil
			}
			if c.spec != nil {
				return c.spec
			}
			return []byte(vmSpec("ok"))
		}}
		res.out, res.err = vsock.Serve(ctx, vm.Link(), h)
		if sent.Len() > 0 {
			if res.rep, err = report.Decode(&sent, report.Limits{}); err != nil {
				res.err = err
			}
		}
	}
	select {
	case <-vm.Done():
	case <-ctx.Done():
		vm.Kill()
		t.Errorf("guest did not end: %v", ctx.Err())
	}
	res.exit, res.console = vm.Exit(), string(vm.ConsoleTail())
	for _, part := range c.console {
		if !strings.Contains(res.console, part) {
			t.Errorf("console lacks %q", part)
		}
	}
	if t.Failed() {
		t.Logf("%s\nconsole:\n%s", config.Command(), res.console)
	}
	return res
}

// buildImage builds the image of a case and returns its path.
func buildImage(t *testing.T, k *kernel.Kernel, c vmCase) string {
	t.Helper()
	o := c.image
	o.Init, o.Kernel, o.Features = staticSelf(t), k, []string{"serial"}
	if c.vsock {
		o.Features = []string{"vsock"}
	}
	var buf bytes.Buffer
	if _, err := initramfs.Build(&buf, o); err != nil {
		t.Fatal(err)
	}
	image := buf.Bytes()
	if c.cut {
		at := bytes.LastIndex(image, []byte("070701"))     // the trailer
		at = bytes.LastIndex(image[:at], []byte("070701")) // the sentinel
		image = append(image[:at:at], trailerOf(image)...)
	}
	path := filepath.Join(t.TempDir(), "initrd.img")
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// trailerOf returns the end of an archive, so that one without its last entry
// still unpacks.
func trailerOf(image []byte) []byte {
	return image[bytes.LastIndex(image, []byte("070701")):]
}

// vmSpec is a spec whose name steers runInGuest.
func vmSpec(name string) string {
	return fmt.Sprintf(`{"version":1,"name":"name-%s","duration":"1s","groups":[{"name":"solo","workers":3,"work":{"type":"spin_wait"}}]}`, name)
}

// TestVMKernels boots every kernel of the cache, with the spec from the host.
func TestVMKernels(t *testing.T) {
	for _, k := range testKernels(t) {
		t.Run(k.Release, func(t *testing.T) {
			t.Parallel()
			res := bootVM(t, k, vmCase{
				args:    []string{"guestinit.link=serial guestinit.spec=link"},
				console: []string{"guestinit: start devel go", "guestinit: done status=0"},
			})
			if res.err != nil || !res.out.Done() {
				t.Fatalf("outcome %+v, error %v\n%s", res.out, res.err, res.console)
			}
			if res.exit.Shutdown != "guest-shutdown" {
				t.Errorf("exit %+v", res.exit)
			}
			if res.rep.Run.KernelRelease != k.Release || len(res.rep.Workers) != 3 {
				t.Errorf("report of %s with %d workers", res.rep.Run.KernelRelease, len(res.rep.Workers))
			}
			notes := strings.Join(res.rep.Notes, "\n")
			want := []string{"nofile 1048576", EnvPID1 + "=1", "orphan reaped"}
			for _, m := range mounts() {
				want = append(want, "mounted "+m.target)
			}
			for _, w := range want {
				if !slices.Contains(res.rep.Notes, w) {
					t.Errorf("notes lack %q:\n%s", w, notes)
				}
			}
			t.Logf("boot_ms %v\nconsole:\n%s", res.rep.Run.BootMs, res.console)
		})
	}
}

// TestVMEndings boots guests that end in ways of their own.
func TestVMEndings(t *testing.T) {
	k := newest(t)
	encoded := func(name string) string {
		s, err := cmdline.EncodeSpec([]byte(vmSpec(name)))
		if err != nil {
			t.Fatal(err)
		}
		return cmdline.KeySpec + "=" + s
	}
	tests := []struct {
		name   string
		vm     vmCase
		status int    // of the bye; -1 is none
		text   string // part of the bye's
	}{
		{"spec on the command line", vmCase{args: []string{encoded("ok")}}, vsock.StatusDone, ""},
		{"no link", vmCase{args: []string{encoded("ok"), "guestinit.link=none"}, noLink: true,
			console: []string{"solo", "spin_wait", "orphan reaped", "done status=0"}}, -1, ""},
		{"no host found, spec in the image", vmCase{noLink: true, image: initramfs.Options{Spec: []byte(vmSpec("ok"))},
			console: []string{"no host, the report goes to the console", "solo", "done status=0"}}, -1, ""},
		{"run fails", vmCase{args: []string{encoded("fails")},
			console: []string{"fatal: open /nowhere", "done status=5"}}, vsock.StatusSetup, "as the test wants it"},
		{"run panics", vmCase{args: []string{encoded("panics")},
			console: []string{"fatal: panic in run", "done status=3"}}, vsock.StatusCrash, "assignment to entry in nil map"},
		{"PID 1 dies", vmCase{args: []string{encoded("dies")},
			console: []string{"panic: in a goroutine that nobody guards", "Attempted to kill init"}}, -1, ""},
		{"deadline", vmCase{args: []string{encoded("stops"), "guestinit.deadline=200ms"}}, vsock.StatusDone, ""},
		{"host without a spec", vmCase{args: []string{"guestinit.spec=link"}, noSpec: true,
			console: []string{"host refused", "done status=2"}}, -1, ""},
		{"garbage on the command line", vmCase{args: []string{"guestinit.spec=garbage"},
			console: []string{"done status=2"}}, vsock.StatusSpec, "decode guestinit.spec"},
		{"truncated image", vmCase{args: []string{encoded("ok")}, cut: true,
			console: []string{"done status=5"}}, vsock.StatusSetup, "the initramfs is truncated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			res := bootVM(t, k, tt.vm)
			switch {
			case tt.status < 0 && res.out.Bye != nil:
				t.Errorf("bye %+v from a guest that cannot say it", *res.out.Bye)
			case tt.status >= 0 && res.out.Bye == nil:
				t.Errorf("no bye: %v\n%s", res.err, res.console)
			case tt.status >= 0 && (res.out.Bye.Status != tt.status || !strings.Contains(res.out.Bye.Text, tt.text)):
				t.Errorf("bye %+v, want status %d and %q", *res.out.Bye, tt.status, tt.text)
			}
			if tt.status == vsock.StatusDone && (res.rep == nil || len(res.rep.Workers) != 3) {
				t.Errorf("report %+v", res.rep)
			}
			if tt.name == "deadline" && res.rep != nil && !slices.Contains(res.rep.Notes, "told to stop") {
				t.Errorf("notes %q", res.rep.Notes)
			}
		})
	}
}
