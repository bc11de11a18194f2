package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/qemu/qemutest"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(fakeEnv); name != "" {
		playQEMU(name)
	}
	if kernel := os.Getenv(launcherEnv); kernel != "" {
		playLauncher(kernel)
	}
	os.Exit(m.Run())
}

const specText = `
version: 1
name: test
duration: 100ms
deadline: 5s
groups:
  - {name: spin, workers: 2, work: spin_wait}
`

func testSpec(t testing.TB) *spec.Spec {
	t.Helper()
	s, err := spec.Parse([]byte(specText), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeOptions is a run whose QEMU is the named fake.
func fakeOptions(t *testing.T, name string) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(fakeEnv, name)
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())
	k := qemutest.Kernel(t, qemutest.Hang())
	return Options{
		Spec: testSpec(t), Kernel: k, Init: k, QEMU: exe, Accel: "tcg", Link: "serial",
		BootTimeout: 30 * time.Second, Silence: 30 * time.Second,
	}
}

func TestEnds(t *testing.T) {
	const brief = 300 * time.Millisecond
	for _, tt := range []struct {
		fake    string
		change  func(*Options)
		class   Class // 0 for success
		want    []string
		workers int
	}{
		{fake: "pass", workers: 2},
		{fake: "stays-after-bye", change: func(o *Options) { o.Timeout = 3 * time.Second }, workers: 2},
		{fake: "exit-1", class: Setup, want: []string{"status 1", "no such accelerator"}},
		{fake: "mute", change: func(o *Options) { o.BootTimeout = brief }, class: Timeout, want: []string{"did not reach /init", "tcg,thread=single"}},
		{fake: "mute-after-init", change: func(o *Options) { o.BootTimeout = 2 * time.Second }, class: Timeout, want: []string{"no hello", "blocked for more than"}},
		{fake: "mute-after-hello", change: func(o *Options) { o.Silence = brief }, class: Timeout, want: []string{"said nothing for 300ms"}},
		{fake: "mute-after-hello", change: func(o *Options) { o.Timeout = 3 * time.Second }, class: Timeout, want: []string{"within 3s (--timeout)"}},
		{fake: "garbage", class: Crash, want: []string{"broke the host link", "corrupt"}},
		{fake: "garbage-after-hello", class: Crash, want: []string{"broke the host link", "corrupt"}},
		{fake: "second-hello", class: Crash, want: []string{"broke the host link", "second hello"}},
		{fake: "no-bye", class: Crash, want: []string{"without saying that it is done"}, workers: 2},
		{fake: "torn", class: Crash, want: []string{"without saying that it is done"}, workers: 1},
		{fake: "torn-and-done", class: Crash, want: []string{"report is no use", "torn"}, workers: 1},
		{fake: "nonsense-report", class: Crash, want: []string{"report is no use", "corrupt"}},
		{fake: "too-many-workers", class: Crash, want: []string{"report is no use", "limit"}, workers: 2},
		{fake: "done-without-report", class: Crash, want: []string{"no whole report"}},
		{fake: "refuses-spec", class: Usage, want: []string{"gave up: spec: groups[0].work: ·[31munknown"}},
		{fake: "timed-out", class: Timeout, want: []string{"deadline exceeded"}, workers: 2},
		{fake: "panic-and-stay", class: Crash, want: []string{"PID 1 ended with status 2", "nil pointer dereference", "Attempted to kill init"}},
		{fake: "oops-and-pass", class: Crash, want: []string{"oopsed", "NULL pointer"}, workers: 2},
	} {
		t.Run(tt.fake, func(t *testing.T) {
			o := fakeOptions(t, tt.fake)
			if tt.change != nil {
				tt.change(&o)
			}
			res, err := Run(t.Context(), o)
			var e *Error
			switch {
			case tt.class == 0 && err != nil:
				t.Fatal(err)
			case tt.class != 0 && !errors.As(err, &e):
				t.Fatalf("got %v, want class %v", err, tt.class)
			}
			checkReport(t, res, err, tt.workers)
			if tt.class == 0 {
				return
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if e.Class != tt.class || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("class %v, want %v; error %q", e.Class, tt.class, err)
			}
			if !strings.Contains(e.Command, "-kernel") || !strings.Contains(e.Details(), e.Command) {
				t.Errorf("details %q lack the command", e.Details())
			}
		})
	}
}

// checkReport holds what is true of every started run: a report with what could
// be saved, that fails unless all went well, and says why first.
func checkReport(t *testing.T, res *Result, err error, workers int) {
	t.Helper()
	r := res.Report
	if r == nil {
		t.Fatal("no report")
	}
	if len(r.Workers) != workers || len(r.Groups) != 1 || r.Groups[0].Name != "spin" {
		t.Errorf("%d workers, want %d; groups %+v", len(r.Workers), workers, r.Groups)
	}
	if r.Run.Accelerator != res.Accel.String() || r.Run.QEMUVersion == "" || r.Run.BootAttempts != res.Attempts || r.Run.Link == "" {
		t.Errorf("run %+v", r.Run)
	}
	if vsock := strings.Contains(res.Command, "vhost-user-vsock-pci"); vsock != strings.Contains(r.Run.Link, "vhost-user-vsock") {
		t.Errorf("link %s with %s", r.Run.Link, res.Command)
	}
	if err == nil {
		if r.Verdict != report.Pass || ExitStatus(err, r) != StatusPass {
			t.Errorf("verdict %s, failures %q, exit status %d", r.Verdict, r.Failures, ExitStatus(err, r))
		}
		return
	}
	if r.Verdict != report.Fail || len(r.Failures) == 0 || r.Failures[0] != err.Error() {
		t.Errorf("verdict %s, failures %q, want first %q", r.Verdict, r.Failures, err)
	}
}

// TestKVMInsistedOn has a KVM that only emulates: QEMU dies of it, and the error
// says so and what to do.
func TestKVMInsistedOn(t *testing.T) {
	o := fakeOptions(t, "aborts")
	o.Accel = "kvm"
	cache, err := kernel.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := (qemu.Prober{CacheDir: cache}).Distrust("it only emulates"); err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), o)
	checkReport(t, res, err, 0)
	if ExitStatus(err, res.Report) != int(Setup) || res.Attempts != 1 {
		t.Errorf("exit status %d after %d attempts", ExitStatus(err, res.Report), res.Attempts)
	}
	for _, want := range []string{"crashed with SIGABRT", "failed to set MSR 0x10a", "it only emulates", "--accel tcg"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestKilledFromOutside(t *testing.T) {
	o := fakeOptions(t, "mute-after-hello")
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
}

// children are the processes that this test runs.
func children(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		t.Fatalf("no children files: %v", err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		for _, word := range strings.Fields(string(data)) {
			var pid int
			fmt.Sscan(word, &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestInterrupted(t *testing.T) {
	o := fakeOptions(t, "mute-after-hello")
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(e Event) {
		if e.Stage == StageHello {
			cancel()
		}
	}
	res, err := Run(ctx, o)
	checkReport(t, res, err, 0)
	if ExitStatus(err, res.Report) != int(Setup) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if pids := children(t); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
}

func TestCancelledBeforeItBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res, err := Run(ctx, fakeOptions(t, "pass"))
	if !errors.Is(err, context.Canceled) || res.Report != nil {
		t.Errorf("got %v, report %v", err, res.Report)
	}
}

// A deadline that passes as QEMU is about to be started is a timeout like any other.
func TestNoTimeLeft(t *testing.T) {
	o := fakeOptions(t, "pass")
	o.Timeout = time.Second
	o.Progress = func(e Event) {
		if e.Stage == StageBoot {
			time.Sleep(2 * o.Timeout) // for certain: its clock began a little earlier
		}
	}
	res, err := Run(t.Context(), o)
	if ExitStatus(err, res.Report) != int(Timeout) || res.Report != nil || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("got %v, report %v", err, res.Report)
	}
}

func TestRetriesOnceSingleThreaded(t *testing.T) {
	o := fakeOptions(t, "new-stalls-multi")
	o.BootTimeout = 500 * time.Millisecond
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, res, err, 2)
	if res.Attempts != 2 || res.Report.Run.Accelerator != "tcg,thread=single" {
		t.Errorf("%d attempts, accelerator %s", res.Attempts, res.Report.Run.Accelerator)
	}
	if notes := strings.Join(res.Report.Notes, "\n"); !strings.Contains(notes, "boot 1 under tcg,thread=multi was given up") {
		t.Errorf("notes %q", notes)
	}
}

// A plan of KVM first, as a machine has it whose KVM passed the probe.
func TestFallsBackFromKVM(t *testing.T) {
	o := fakeOptions(t, "kvm-breaks")
	r := &runner{o: o, start: time.Now(), res: &Result{}}
	if err := r.prepare(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pack(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer r.image.Close()
	kvm, err := qemu.NewAccelerator(qemu.KVM, "", r.version)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.attempts(t.Context(), []qemu.Accelerator{kvm, r.res.Accel}); err != nil {
		t.Fatal(err)
	}
	checkReport(t, r.res, nil, 2)
	if notes := strings.Join(r.res.Report.Notes, "\n"); !strings.Contains(notes, "boot 1 under kvm was given up (KVM internal error)") {
		t.Errorf("notes %q", notes)
	}
	if p := r.prober.Probe(t.Context()); p.Usable || !p.Cached || !strings.Contains(p.Reason, "KVM internal error") {
		t.Errorf("KVM is not distrusted from now on: %+v", p)
	}
}

func TestKVMAskedForHasNoFallback(t *testing.T) {
	o := fakeOptions(t, "kvm-breaks")
	o.Accel = "kvm"
	res, err := Run(t.Context(), o)
	if ExitStatus(err, res.Report) != int(Setup) || !strings.Contains(err.Error(), "internal-error") || res.Attempts != 1 {
		t.Errorf("%d attempts, %v", res.Attempts, err)
	}
}

func TestProgress(t *testing.T) {
	var plain, terminal, log bytes.Buffer
	show := []func(Event){NewProgress(&plain, 0), NewProgress(&terminal, 80), NewEventLog(&log)}
	o := fakeOptions(t, "says-escapes")
	var stages []string
	o.Progress = func(e Event) {
		stages = append(stages, string(e.Stage))
		for _, f := range show {
			f(e)
		}
	}
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	order := strings.Join(stages, " ")
	for _, want := range []string{"kernel image boot", "hello log phase progress", "report"} {
		if !strings.Contains(strings.Replace(order, "console ", "", 1), want) {
			t.Errorf("stages %s lack %s", order, want)
		}
	}
	if s := plain.String(); strings.Contains(s, "\x1b") || !strings.Contains(s, "log: red ·[31malert·; next\n") {
		t.Errorf("plain progress %q", s)
	}
	if s := terminal.String(); !strings.Contains(s, "spin     2 alive             42 iterations            0/s\n\x1b[1A\r\x1b[J") {
		t.Errorf("terminal progress %q", s)
	}
	var kinds []string
	for line := range strings.Lines(log.String()) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		kinds = append(kinds, string(e.Stage))
		if e.Stage == StageProgress && !reflect.DeepEqual(e.Groups, []GroupProgress{{Name: "spin", Alive: 2, Iterations: 42}}) {
			t.Errorf("groups %+v", e.Groups)
		}
	}
	if !slices.Equal(kinds, stages) {
		t.Errorf("the log has %q, want %q", kinds, stages)
	}
}

func TestConsoleThatBlocks(t *testing.T) {
	r, w, err := os.Pipe() // nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	o := fakeOptions(t, "floods-console")
	o.Console = w
	o.ConsoleFile = filepath.Join(t.TempDir(), "console")
	res, err := Run(t.Context(), o)
	checkReport(t, res, err, 2)
	if notes := strings.Join(res.Report.Notes, "\n"); !strings.Contains(notes, "of the console are lost") {
		t.Errorf("notes %q", notes)
	}
	data, err := os.ReadFile(o.ConsoleFile)
	if err != nil || !bytes.Contains(data, []byte("yyyy")) {
		t.Errorf("the file beside it has %d bytes, %v", len(data), err)
	}
}

func TestConsoleIsAPipeNobodyReads(t *testing.T) {
	o := fakeOptions(t, "pass")
	o.ConsoleFile = filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(o.ConsoleFile, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.ConsoleFile) {
		t.Errorf("got %v", err)
	}
}

func TestSpecTravels(t *testing.T) {
	t.Run("on the command line", func(t *testing.T) {
		res, err := Run(t.Context(), fakeOptions(t, "echoes-spec"))
		if err != nil || bytes.Contains(res.Console, []byte("spec of")) {
			t.Errorf("console %q, %v", res.Console, err)
		}
	})
	t.Run("over the link", func(t *testing.T) {
		o := fakeOptions(t, "echoes-spec")
		o.Append = "user=" + strings.Repeat("x", 1800)
		res, err := Run(t.Context(), o)
		json, jerr := o.Spec.JSON()
		if err != nil || jerr != nil || !bytes.Contains(res.Console, fmt.Appendf(nil, "spec of %d bytes", len(json))) {
			t.Errorf("console %q, %v, %v", res.Console, err, jerr)
		}
	})
}

func TestKeep(t *testing.T) {
	o := fakeOptions(t, "pass")
	o.Keep = true
	var events []Event
	o.Progress = func(e Event) { events = append(events, e) }
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{keepImage, keepSpec, keepConsole, keepReport, keepCommand} {
		if fi, err := os.Stat(filepath.Join(res.Dir, name)); err != nil || fi.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	script, err := os.ReadFile(filepath.Join(res.Dir, keepCommand))
	if err != nil || !bytes.Contains(script, []byte("guestinit.link=none")) || !strings.Contains(res.Command, "guestinit.link=serial") {
		t.Errorf("script %s, command %s, %v", script, res.Command, err)
	}
	f, err := os.Open(filepath.Join(res.Dir, keepReport))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if rep, err := report.Decode(f, report.DefaultLimits()); err != nil || len(rep.Workers) != 2 {
		t.Errorf("kept report: %v", err)
	}
	if !slices.ContainsFunc(events, func(e Event) bool { return e.Stage == StageKeep && e.Text == res.Dir }) {
		t.Errorf("no event names %s: %v", res.Dir, events)
	}
	again, err := Run(t.Context(), o)
	if err != nil || again.Dir == res.Dir {
		t.Errorf("second run in %s, first in %s, %v", again.Dir, res.Dir, err)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *Options)
		class  Class
		want   string
	}{
		{"no spec", func(_ *testing.T, o *Options) { o.Spec = nil }, Usage, "no spec"},
		{"bad spec", func(_ *testing.T, o *Options) { o.Spec.Groups[0].Workers = -1 }, Usage, "groups[0].workers"},
		{"bad accelerator", func(_ *testing.T, o *Options) { o.Accel = "xen" }, Usage, "xen"},
		{"bad link", func(_ *testing.T, o *Options) { o.Link = "carrier-pigeon" }, Usage, "carrier-pigeon"},
		{"newline", func(_ *testing.T, o *Options) { o.Append = "a\nb" }, Usage, "append"},
		{"long append", func(_ *testing.T, o *Options) { o.Append = strings.Repeat("x", 3000) }, Usage, "the kernel keeps 2047"},
		{"negative timeout", func(_ *testing.T, o *Options) { o.Timeout = -1 }, Usage, "timeout"},
		{"memory", func(_ *testing.T, o *Options) { o.MemoryMiB = 1 }, Usage, "memory"},
		{"cpus", func(_ *testing.T, o *Options) { o.CPUs = 9999 }, Usage, "cpus"},
		{"no QEMU", func(_ *testing.T, o *Options) { o.QEMU = "/nonexistent" }, Setup, "--qemu"},
		{"QEMU that is none", func(_ *testing.T, o *Options) { o.QEMU = "/bin/true" }, Setup, "version"},
		{"no kernel", func(_ *testing.T, o *Options) { o.Kernel = "/nonexistent" }, Setup, "/nonexistent"},
		{"no kernel at all", func(t *testing.T, o *Options) { o.Kernel = ""; t.Setenv("GUESTINIT_KERNEL", "") }, Setup, "kernel fetch"},
		{"no init", func(_ *testing.T, o *Options) { o.Init = "/nonexistent" }, Setup, "/nonexistent"},
		{"no file", func(_ *testing.T, o *Options) { o.ConsoleFile = "/nonexistent/console" }, Setup, "/nonexistent/console"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := fakeOptions(t, "pass")
			tt.change(t, &o)
			res, err := Run(t.Context(), o)
			if ExitStatus(err, res.Report) != int(tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want class %v and %q", err, tt.class, tt.want)
			}
			if res.Report != nil {
				t.Error("a report of a run that never began")
			}
		})
	}
}

// launcherEnv makes the test binary a launcher of a kernel that hangs.
const launcherEnv = "GUESTINIT_TEST_LAUNCHER"

func playLauncher(image string) {
	s, err := spec.Parse([]byte(specText), "test.yaml")
	mustDo(err)
	_, err = Run(context.Background(), Options{
		Spec: s, Kernel: image, Init: image, Accel: "tcg",
		Progress: func(e Event) {
			if e.Stage == StageConsole {
				fmt.Println("up")
			}
		},
	})
	mustDo(err)
	os.Exit(1)
}

// kill -9 of the launcher: QEMU is gone with it.
func TestLauncherKilled(t *testing.T) {
	qemutest.QEMU(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image := qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), qemutest.Hang())
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), launcherEnv+"="+image, "GUESTINIT_CACHE="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer cmd.Process.Kill()
	buf := make([]byte, 16)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "up\n" {
		t.Fatalf("launcher said %q, %v", buf[:n], err)
	}
	if n := running(t, image); n != 1 {
		t.Fatalf("%d QEMUs run %s, want 1", n, image)
	}
	cmd.Process.Kill()
	for limit := time.Now().Add(30 * time.Second); running(t, image) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("QEMU outlived its launcher")
		}
	}
}

// running counts the processes, the launcher aside, with image among their
// arguments.
func running(t *testing.T, image string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && bytes.Contains(data, []byte("\x00"+image+"\x00")) {
			n++
		}
	}
	return n
}

func TestDryRun(t *testing.T) {
	qemutest.QEMU(t)
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())
	image := qemutest.Kernel(t, qemutest.Say("by hand\n", 1), qemutest.PowerOff())
	res, err := Run(t.Context(), Options{Spec: testSpec(t), Kernel: image, Init: image, Accel: "tcg", DryRun: true, Append: `x="a b"`})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"guestinit.link=none", "server=on,wait=off", filepath.Join(res.Dir, keepImage), `x="a b"`} {
		if !strings.Contains(res.Command, want) {
			t.Errorf("command %s lacks %s", res.Command, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "sh", "-c", res.Command),
		exec.CommandContext(ctx, filepath.Join(res.Dir, keepCommand)),
	} {
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("by hand")) {
			t.Errorf("%v: %q, %v", cmd.Args, out, err)
		}
	}
}
