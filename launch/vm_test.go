package launch

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu/qemutest"
)

// realKernels are the kernels in the user's cache, newest first.
func realKernels(t *testing.T) []*kernel.Kernel {
	t.Helper()
	qemutest.QEMU(t)
	all, err := kernel.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Skip("no kernel in the cache; run 'guestinit kernel fetch'")
	}
	return all
}

// faultInit builds testdata/faultinit, once for all its users.
func faultInit(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "faultinit")
	cmd := exec.Command("go", "build", "-o", path, "-ldflags=-s -w", "./testdata/faultinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build faultinit: %v\n%s", err, out)
	}
	return path
}

// vmOptions boots k in a real VM with deadlines that a busy machine keeps.
func vmOptions(t *testing.T, k *kernel.Kernel, init, mode string) Options {
	t.Helper()
	return Options{
		Spec: testSpec(t), Kernel: k.Dir, Init: init, Append: "faultinit.mode=" + mode,
		BootTimeout: 2 * time.Minute, Silence: time.Minute, Timeout: 3 * time.Minute,
	}
}

func TestVMPassesOnEveryKernel(t *testing.T) {
	init := faultInit(t)
	for _, k := range realKernels(t) {
		t.Run(k.Release, func(t *testing.T) {
			t.Parallel()
			res, err := Run(t.Context(), vmOptions(t, k, init, "none"))
			if err != nil {
				t.Fatalf("%v\n%s", err, res.Console)
			}
			checkReport(t, res, err, 2)
			run := res.Report.Run
			for _, stage := range []string{"image", "qemu_to_init", "qemu_to_hello", "ready"} {
				if run.BootMs[stage] <= 0 {
					t.Errorf("boot_ms has no %s: %v", stage, run.BootMs)
				}
			}
			if run.KernelRelease != k.Release || res.Exit.Shutdown != "guest-shutdown" {
				t.Errorf("kernel %s, exit %+v", run.KernelRelease, res.Exit)
			}
			t.Logf("took %v: %v; notes %q", res.Took, run.BootMs, res.Report.Notes)
		})
	}
}

func TestVMFaults(t *testing.T) {
	init := faultInit(t)
	kernels := realKernels(t)
	for i, tt := range []struct {
		mode    string
		change  func(*Options)
		class   Class // 0 for success
		want    []string
		workers int
	}{
		{mode: "panic", class: Crash, want: []string{"PID 1 ended with status 2", "PID 1 has had enough", "Attempted to kill init"}},
		{mode: "exit", class: Crash, want: []string{"PID 1 ended with status 3"}},
		{mode: "silent", change: func(o *Options) { o.Silence = time.Second }, class: Timeout, want: []string{"said nothing for 1s"}},
		{mode: "kernel-crash", class: Crash, want: []string{"panicked", "sysrq triggered crash"}},
		{mode: "power-off", class: Crash, want: []string{"powered off without saying that it is done"}},
		{mode: "torn", class: Crash, want: []string{"powered off without saying that it is done"}},
		{mode: "none", change: func(o *Options) { o.Append = "rdinit=/nope" }, class: Crash, want: []string{"found no /init", "Unable to mount root fs"}},
		{mode: "none", change: func(o *Options) { o.Append = "init=/nope rdinit=/nope guestinit.spec=image" }, class: Crash, want: []string{"no /init"}},
		{mode: "none", change: func(o *Options) { o.Append = "guestinit.spec=Z2FyYmFnZQ" }, class: Usage, want: []string{"guestinit.spec"}},
		{mode: "none", change: func(o *Options) { o.Append = "guestinit.spec=image" }, class: Usage, want: []string{"spec"}},
		{mode: "none", change: func(o *Options) { o.Append = "guestinit.link=none"; o.BootTimeout = 15 * time.Second }, class: Crash, want: []string{"powered off without saying that it is done"}},
	} {
		k := kernels[i%len(kernels)]
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			o := vmOptions(t, k, init, tt.mode)
			if tt.change != nil {
				tt.change(&o)
			}
			res, err := Run(t.Context(), o)
			t.Logf("kernel %s, %v: %v", k.Release, res.Took, err)
			if got := ExitStatus(err, res.Report); got != int(tt.class) {
				t.Errorf("exit status %d, want %d; console:\n%s", got, tt.class, res.Console)
			}
			checkReport(t, res, err, tt.workers)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q", want)
				}
			}
		})
	}
}

// A guest that floods its console beside a reader that never reads still ends
// well.
func TestVMFullConsole(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	o := vmOptions(t, realKernels(t)[0], faultInit(t), "flood")
	o.Console = w
	res, err := Run(t.Context(), o)
	checkReport(t, res, err, 2)
	if !bytes.Contains(res.Console, []byte("guestinit: done status=0")) {
		t.Errorf("console ends in %q", lastLines(res.Console, 3))
	}
}

// An image cut off on its way: in the middle of /init, and right before the
// entry that says it is complete.
func TestVMTruncatedImage(t *testing.T) {
	init := faultInit(t)
	k := realKernels(t)[0]
	for _, tt := range []struct {
		name  string
		cut   func(image []byte) int
		class Class
		want  string
	}{
		{"within init", func(image []byte) int { return len(image) / 3 }, Crash, "truncated"},
		// Without its drivers the guest has no link to tell the host.
		{"within a driver", func(image []byte) int { return bytes.Index(image, []byte(".ko\x00")) + 4096 }, Setup, "the guest gave up: image: /etc/guestinit/complete is missing: the initramfs is truncated"},
		// The name of the last entry follows its header of 110 bytes.
		{"before the end", func(image []byte) int { return bytes.Index(image, []byte("etc/guestinit/complete\x00")) - 110 }, Setup, "truncated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &runner{o: vmOptions(t, k, init, "none"), start: time.Now(), res: &Result{}}
			if err := r.prepare(); err != nil {
				t.Fatal(err)
			}
			plan, err := r.pack(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer r.image.Close()
			image, err := io.ReadAll(io.NewSectionReader(r.image, 0, 1<<30))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.image.Truncate(int64(tt.cut(image))); err != nil {
				t.Fatal(err)
			}
			err = r.attempts(t.Context(), plan)
			t.Logf("%v", err)
			if ExitStatus(err, r.res.Report) != int(tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want class %v; console:\n%s", err, tt.class, r.res.Console)
			}
		})
	}
}

// The command of a dry run boots by hand and shows the report on its console.
func TestVMDryRunByHand(t *testing.T) {
	o := vmOptions(t, realKernels(t)[0], faultInit(t), "none")
	t.Setenv("TMPDIR", t.TempDir())
	o.DryRun = true
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "timeout 120 "+res.Command).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("guestinit: done status=0")) || !bytes.Contains(out, []byte("spin")) {
		t.Errorf("%v: %s", err, out)
	}
}

// kill -9 of QEMU, with a guest in it.
func TestVMQEMUKilled(t *testing.T) {
	o := vmOptions(t, realKernels(t)[0], faultInit(t), "silent")
	o.Progress = func(e Event) {
		if e.Stage == StageHello {
			for _, pid := range children(t) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	res, err := Run(t.Context(), o)
	checkReport(t, res, err, 0)
	if ExitStatus(err, res.Report) != int(Setup) || !strings.Contains(err.Error(), "QEMU was killed by SIGKILL") {
		t.Errorf("got %v", err)
	}
	if res.Report.Run.KernelRelease == "" {
		t.Error("the report does not say which kernel it was")
	}
}

// A kernel that hangs before it reaches /init, without a word.
func TestVMNeverReachesInit(t *testing.T) {
	qemutest.QEMU(t)
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	image := qemutest.Kernel(t, qemutest.Hang())
	res, err := Run(t.Context(), Options{Spec: testSpec(t), Kernel: image, Init: image, Accel: "tcg", BootTimeout: 2 * time.Second})
	checkReport(t, res, err, 0)
	if ExitStatus(err, res.Report) != int(Timeout) || !strings.Contains(err.Error(), "did not reach /init within 2s") {
		t.Errorf("got %v", err)
	}
}
