package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
)

// fakeSystem records what PID 1 would have done to its machine.
type fakeSystem struct {
	mounts  []string
	modules int
	fail    map[string]error // of a mount's file system type, or "module"
}

func (f *fakeSystem) Mount(source, target, fstype string, flags uintptr, data string) error {
	if err := f.fail[fstype]; err != nil {
		return err
	}
	f.mounts = append(f.mounts, target)
	return nil
}
func (f *fakeSystem) Unmount(string, int) error { return nil }
func (f *fakeSystem) FinitModule(fd int, params string, flags int) error {
	f.modules++
	return f.fail["module"]
}
func (f *fakeSystem) Sync()            {}
func (f *fakeSystem) Reboot(int) error { return unix.EPERM }

// syncBuffer is a console to read from while it is written to.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

const goodSpec = `{"version":1,"duration":"1s","groups":[{"name":"solo","workers":3,"work":{"type":"spin_wait"}}]}`

// guestCase is a machine that a guest boots on, and what is to come of it.
type guestCase struct {
	name  string
	line  string            // kernel command line
	files map[string]string // of the image; a nil map is an image of ours with goodSpec
	fail  map[string]error  // of the system
	run   RunFunc           // nil is runReport
	host  []byte            // the spec of the host; nil is a machine without one
	vsock bool              // it listens on a vsock, else on a port

	status  int
	text    []string // all of it in the text of the bye
	console []string // all of it on the console
	notes   []string // all of it in the notes of the report; nil is no report
}

// runReport is a run that succeeds.
func runReport(_ context.Context, _ *spec.Spec, env Env) error {
	if err := env.Sink.Header(env.Run); err != nil {
		return err
	}
	w := report.Worker{TID: 42, WorkType: "spin_wait", Completed: true, Iterations: 12345}
	if err := env.Sink.Worker(&w); err != nil {
		return err
	}
	env.Log("worker done")
	return env.Sink.Trailer(report.Trailer{Run: env.Run, Notes: append(env.Notes, "note of the run")})
}

func TestBoot(t *testing.T) {
	encoded, err := cmdline.EncodeSpec([]byte(goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	image := func(more ...string) map[string]string {
		files := map[string]string{completePath: "", specPath: goodSpec}
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	moduleList := "serial /lib/virtio.ko\nserial /lib/virtio_console.ko\nvsock /lib/vsock.ko\nvsock /lib/virtio.ko\n"
	modules := image(modulesPath, moduleList, "lib/virtio.ko", "", "lib/virtio_console.ko", "", "lib/vsock.ko", "")
	tests := []guestCase{
		{name: "spec in the image, host", line: "quiet guestinit.link=serial", host: []byte("{}"),
			notes: []string{"note of the run"}, console: []string{"spec: 96 bytes from the image", "worker done"}},
		{name: "spec from the host", line: "guestinit.spec=link", host: []byte(goodSpec),
			notes: []string{}, console: []string{"spec: 96 bytes from the link"}},
		{name: "spec on the command line", line: "guestinit.spec=" + encoded, host: []byte("{}"),
			notes: []string{}, console: []string{"spec: 96 bytes from the command line"}},
		{name: "no host", line: "guestinit.link=none", console: []string{"12", "solo", "a VM, no host link", "spin_wait", "note of the run"}},
		{name: "no host, by looking", line: "", console: []string{"no host", "solo"}},
		{name: "someone else's image", line: "guestinit.link=serial", files: map[string]string{}, host: []byte(goodSpec), notes: []string{}},
		{name: "quiet", line: "guestinit.quiet", host: []byte("{}"), notes: []string{}},
		{name: "misspelt key", line: "guestinit.quiett", host: []byte("{}"), notes: []string{"did you mean guestinit.quiet?"}},
		{name: "bad key", line: "guestinit.deadline=soon", host: []byte("{}"),
			status: vsock.StatusSetup, text: []string{"cmdline: ", "guestinit.deadline", "not a duration"}},
		{name: "truncated image", line: "", files: map[string]string{specPath: goodSpec}, host: []byte("{}"),
			status: vsock.StatusSetup, text: []string{"image: /etc/guestinit/complete is missing: the initramfs is truncated"}},
		{name: "no cgroup2", line: "", fail: map[string]error{"cgroup2": unix.ENODEV}, host: []byte("{}"),
			status: vsock.StatusSetup, text: []string{"mounts: mount cgroup2 on /sys/fs/cgroup", "no such device", "CONFIG_CGROUPS"}},
		{name: "no debugfs", line: "", fail: map[string]error{"debugfs": unix.ENODEV}, host: []byte("{}"),
			notes: []string{"mount debugfs on /sys/kernel/debug: no such device: the kernel lacks CONFIG_DEBUG_FS"}},
		{name: "mounted already", line: "", fail: map[string]error{"proc": unix.EBUSY}, host: []byte("{}"), notes: []string{}},
		{name: "modules", line: "", files: modules, host: []byte("{}"), notes: []string{}, console: []string{"modules: virtio virtio_console vsock ("}},
		{name: "modules are there already", line: "", files: modules, fail: map[string]error{"module": unix.EEXIST}, host: []byte("{}"), notes: []string{}},
		{name: "module of another kernel", line: "", files: modules, fail: map[string]error{"module": unix.ENOEXEC}, host: []byte("{}"),
			notes: []string{"load module /lib/virtio.ko: exec format error: it is for another kernel"}},
		{name: "no port", line: "guestinit.link=serial",
			status: vsock.StatusSetup, text: []string{"link: no virtio-serial port guestinit.0", "virtio_console"}},
		{name: "vsock", line: "guestinit.link=vsock:77", host: []byte("{}"), vsock: true, notes: []string{}, console: []string{"link: vsock ("}},
		{name: "vsock, by looking", line: "", host: []byte("{}"), vsock: true, notes: []string{}, console: []string{"link: vsock ("}},
		{name: "serial, by looking", line: "", host: []byte("{}"), notes: []string{}, console: []string{"link: serial ("}},
		{name: "modules of one link", line: "guestinit.link=vsock", files: modules, host: []byte("{}"), vsock: true, notes: []string{}, console: []string{"modules: vsock virtio ("}},
		{name: "no vsock", line: "guestinit.link=vsock",
			status: vsock.StatusSetup, text: []string{"link: no host on the vsock"}},
		{name: "no spec", line: "", files: map[string]string{},
			status: vsock.StatusSpec, text: []string{"spec: no spec: none in guestinit.spec=, none at /etc/guestinit/spec.json, no host to ask"}},
		{name: "spec of garbage", line: "guestinit.spec=KLUv_garbage", host: []byte("{}"),
			status: vsock.StatusSpec, text: []string{"spec: decode guestinit.spec"}},
		{name: "bad spec from the host", line: "guestinit.spec=link", host: []byte(`{"version":1,"grups":[]}`),
			status: vsock.StatusSpec, text: []string{"spec: ", "grups"}},
		{name: "run fails", line: "", host: []byte("{}"), run: func(context.Context, *spec.Spec, Env) error { return io.ErrNoProgress },
			status: vsock.StatusSetup, text: []string{io.ErrNoProgress.Error()}},
		{name: "run chooses a status", line: "", host: []byte("{}"),
			run: func(context.Context, *spec.Spec, Env) error {
				return fmt.Errorf("run: %w", &Error{vsock.StatusSpec, io.EOF})
			},
			status: vsock.StatusSpec, text: []string{"run: EOF"}},
		{name: "run panics", line: "", host: []byte("{}"), run: func(context.Context, *spec.Spec, Env) error { panic("oh no") },
			status: vsock.StatusCrash, text: []string{"panic in run: oh no", "boot_test.go"}},
		{name: "run panics without a host", line: "guestinit.link=none", run: func(context.Context, *spec.Spec, Env) error { panic("oh no") },
			status: vsock.StatusCrash, text: []string{"oh no"}, console: []string{"guestinit: fatal: panic in run: oh no\n"}},
		{name: "ended from inside", line: "", host: []byte("{}"), run: func(ctx context.Context, s *spec.Spec, env Env) error {
			unix.Kill(os.Getpid(), unix.SIGTERM)
			<-ctx.Done()
			return runReport(ctx, s, env)
		}, notes: []string{"note of the run"}, status: vsock.StatusSetup, text: []string{"ended early, the report covers the time until then: terminated"}},
		{name: "hung up from inside", line: "", host: []byte("{}"), run: func(ctx context.Context, s *spec.Spec, env Env) error {
			unix.Kill(os.Getpid(), unix.SIGHUP)
			return runReport(ctx, s, env)
		}, notes: []string{}},
		{name: "deadline", line: "guestinit.deadline=100ms", host: []byte("{}"),
			run:    func(ctx context.Context, _ *spec.Spec, _ Env) error { <-ctx.Done(); return ctx.Err() },
			status: vsock.StatusTimeout, text: []string{"deadline exceeded"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.files == nil {
				tt.files = image()
			}
			if tt.run == nil {
				tt.run = runReport
			}
			boots(t, tt)
		})
	}
}

// boots takes a guest through its life and checks what came of it.
func boots(t *testing.T, tt guestCase) {
	var screen syncBuffer
	sys := &fakeSystem{fail: tt.fail}
	b := &boot{
		opts:   Options{Version: "v-test"},
		run:    tt.run,
		sys:    sys,
		root:   makeRoot(t, tt.line, tt.files),
		con:    newConsole(&screen),
		line:   cmdline.Line{Link: cmdline.LinkAuto},
		bootMs: map[string]float64{},
	}
	served := make(chan error, 1)
	var out vsock.Outcome
	var sent bytes.Buffer
	b.dial = func(line cmdline.Line, link string) (io.ReadWriteCloser, error) {
		want := b.line.Link
		if b.failed {
			want = cmdline.LinkAuto
		}
		if line.Link != want {
			t.Errorf("the wait for the host is that of link %s, want %s", line.Link, want)
		}
		if link == cmdline.LinkVsock && !tt.vsock {
			return nil, fmt.Errorf("%w: dial", errNoVsock)
		}
		if tt.host == nil {
			served <- nil
			return nil, fmt.Errorf("%w; is virtio_console there?", errNoPort)
		}
		ours, theirs := net.Pipe()
		go func() {
			var err error
			out, err = vsock.Serve(t.Context(), theirs, vsock.HostHandler{Report: &sent, Spec: func() []byte { return tt.host }})
			served <- err
		}()
		return ours, nil
	}
	bye := b.live()
	b.con.flush()
	if tt.host != nil {
		if err := <-served; err != nil {
			t.Errorf("host: %v", err)
		} else if *out.Bye != bye {
			t.Errorf("host got bye %+v, want %+v", *out.Bye, bye)
		}
	}
	if bye.Status != tt.status {
		t.Errorf("status %d, want %d", bye.Status, tt.status)
	}
	checkParts(t, "bye", bye.Text, tt.text)
	checkParts(t, "console", screen.String(), tt.console)
	if tt.status != 0 {
		checkParts(t, "console", screen.String(), append(tt.text[:1:1], "guestinit: fatal: "))
		if tt.host != nil && out.Fatal != bye.Text {
			t.Errorf("fatal event %q, want %q", out.Fatal, bye.Text)
		}
	}
	if tt.notes != nil {
		checkReport(t, sent.Bytes(), tt)
	}
	if tt.name == "quiet" && strings.Contains(screen.String(), "mounts:") {
		t.Errorf("not quiet: %s", screen.String())
	}
	if tt.name == "modules" && sys.modules != 3 {
		t.Errorf("%d modules loaded, want 3", sys.modules)
	}
}

// device is what the report names as link.
func (tt guestCase) device() string {
	if tt.vsock {
		return "vsock"
	}
	return "serial"
}

func checkReport(t *testing.T, sent []byte, tt guestCase) {
	t.Helper()
	rep, err := report.Decode(bytes.NewReader(sent), report.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Workers) != 1 || rep.Workers[0].TID != 42 {
		t.Errorf("workers %+v", rep.Workers)
	}
	run := rep.Run
	if run.Version != "v-test" || run.Link != tt.device() || run.KernelRelease != uname().release || run.KernelCmdline != tt.line {
		t.Errorf("run %+v", run)
	}
	for _, stage := range []string{"mounts", "modules", "link", "spec", "ready"} {
		if _, ok := run.BootMs[stage]; !ok {
			t.Errorf("boot_ms lacks %s: %v", stage, run.BootMs)
		}
	}
	checkParts(t, "notes", strings.Join(rep.Notes, "\n"), tt.notes)
	if got := len(rep.Notes); got > len(tt.notes)+1 {
		t.Errorf("notes nobody expects: %q", rep.Notes)
	}
}

func checkParts(t *testing.T, what, text string, parts []string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// makeRoot makes a root with a kernel command line and files.
func makeRoot(t *testing.T, line string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{"proc/cmdline": line + "\n"}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAwaitRunOverrun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := awaitRun(ctx, make(chan error), time.Millisecond)
	if !errors.Is(err, errOverrun) || status(err) != vsock.StatusTimeout || !strings.Contains(err.Error(), "goroutine ") {
		t.Errorf("got %v", err)
	}
}

func TestParseModules(t *testing.T) {
	tests := []struct {
		in   string
		want string
		err  string
	}{
		{"", "[]", ""},
		{"# comment\n\nserial /a.ko\n vsock  /b.ko.xz \n", "[{serial /a.ko} {vsock /b.ko.xz}]", ""},
		{"serial /a.ko\nserial\n", "", "modules:2: want"},
		{"serial a.ko\n", "", "modules:1: want"},
		{strings.Repeat("f /x.ko\n", maxModules+1), "", "more than 1024"},
	}
	for _, tt := range tests {
		got, err := parseModules([]byte(tt.in))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.40q: error %v, want one with %q", tt.in, err, tt.err)
			}
			continue
		}
		if fmt.Sprint(got) != tt.want || err != nil {
			t.Errorf("%.40q: got %v, error %v, want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestFindPort(t *testing.T) {
	class := t.TempDir()
	add := func(port, name string) {
		if err := os.MkdirAll(filepath.Join(class, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "" {
			if err := os.WriteFile(filepath.Join(class, port, "name"), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(port, seen string) {
		t.Helper()
		if p, s := findPort(class); p != port || !strings.Contains(s, seen) {
			t.Errorf("got %q, %q, want %q, %q", p, s, port, seen)
		}
	}
	want("", "0 ports")
	add("vport1p1", "org.qemu.guest_agent.0\n")
	add("vport1p2", "")
	want("", "2 ports of other names")
	add("vport2p1", PortName+"\n")
	want("vport2p1", "")
	class = filepath.Join(class, "none")
	want("", "no driver")
}

// blockedWriter is a console whose host does not drain it.
type blockedWriter struct{ open chan struct{} }

func (w blockedWriter) Write(p []byte) (int, error) { <-w.open; return len(p), nil }

func TestConsoleNeverBlocks(t *testing.T) {
	w := blockedWriter{make(chan struct{})}
	defer close(w.open)
	c := newConsole(w)
	for range 2 * consoleQueue {
		c.printf("line")
	}
	if c.lost.Load() == 0 {
		t.Error("no line lost on a console that takes none")
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add([]byte("serial /lib/modules/6.1/virtio.ko\n# x\n"))
	f.Add([]byte("serial /a\nvsock b\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lines, err := parseModules(in)
		if err != nil {
			return
		}
		for _, l := range lines {
			if l.feature == "" || !filepath.IsAbs(l.path) {
				t.Fatalf("accepted %+v", l)
			}
		}
	})
}
