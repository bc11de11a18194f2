package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/qemu/qemutest"
)

// patience bounds what a test waits for; nothing measures against it.
const patience = 60 * time.Second

// helperEnv makes the test binary a launcher that starts the kernel in it and
// waits to be killed.
const helperEnv = "GUESTINIT_QEMU_TEST_LAUNCHER"

func TestMain(m *testing.M) {
	if kernel := os.Getenv(helperEnv); kernel != "" {
		launcher(kernel)
	}
	if asked := os.Getenv(versionEnv); asked != "" && slices.Contains(os.Args, "--version") {
		playVersion(asked)
	}
	os.Exit(m.Run())
}

func launcher(kernel string) {
	vm, err := Start(context.Background(), machine(kernel), Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(vm.PID())
	<-vm.Done()
	os.Exit(1)
}

func machine(kernel string) Config {
	a, err := NewAccelerator(TCG, "", Version{7, 2, 0})
	if err != nil {
		panic(err)
	}
	return Config{Kernel: kernel, Accel: a, MemoryMiB: 64, CPUs: 1, Append: "console=ttyS0"}
}

func start(t *testing.T, c Config, o Options) *VM {
	t.Helper()
	qemutest.QEMU(t)
	vm, err := Start(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Kill(); err != nil {
			t.Error(err)
		}
		if l := vm.Link(); l != nil {
			l.Close()
		}
	})
	return vm
}

func waitDone(t *testing.T, vm *VM) Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	exit, err := vm.Wait(ctx)
	if err != nil {
		t.Fatalf("%v; console: %q", err, vm.ConsoleTail())
	}
	return exit
}

// waitConsole waits until the watch has found a line of kind.
func waitConsole(t *testing.T, vm *VM, kind Kind) Finding {
	t.Helper()
	limit := time.After(patience)
	for {
		if f, ok := vm.Watch().Find(kind); ok {
			return f
		}
		select {
		case <-vm.Watch().Notify():
		case <-vm.Done():
			if f, ok := vm.Watch().Find(kind); ok {
				return f
			}
			t.Fatalf("QEMU ended (%v) without %s; stderr %q, console %q", vm.Exit(), kind, vm.Exit().Stderr, vm.ConsoleTail())
		case <-limit:
			t.Fatalf("no %s on the console: %q", kind, vm.ConsoleTail())
		}
	}
}

func TestGuestEnds(t *testing.T) {
	for _, tt := range []struct {
		name     string
		end      qemutest.Step
		shutdown string
	}{
		{"power off", qemutest.PowerOff(), "guest-shutdown"},
		{"reset", qemutest.Reset(), "guest-reset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var console strings.Builder
			vm := start(t, machine(qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), tt.end)), Options{Console: []io.Writer{&console}})
			exit := waitDone(t, vm)
			if exit.Code != 0 || exit.Signal != 0 || exit.Shutdown != tt.shutdown {
				t.Errorf("exit %+v, want shutdown %q", exit, tt.shutdown)
			}
			if _, ok := vm.Watch().Find(InitStarted); !ok || console.String() != string(vm.ConsoleTail()) {
				t.Errorf("console %q, tail %q", console.String(), vm.ConsoleTail())
			}
		})
	}
}

func TestKillIsFinalAndRepeatable(t *testing.T) {
	vm := start(t, machine(qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), qemutest.Hang())), Options{})
	waitConsole(t, vm, InitStarted)
	if s, err := vm.Status(t.Context()); err != nil || s != "running" {
		t.Errorf("status %q, %v", s, err)
	}
	for range 2 {
		if err := vm.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if exit := vm.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v, want SIGKILL", exit)
	}
	if _, err := vm.Status(t.Context()); err == nil {
		t.Error("a status of a dead QEMU")
	}
}

// A QEMU that a script runs ends with it.
func TestKillEndsWhatAScriptRuns(t *testing.T) {
	qemutest.QEMU(t)
	script := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+DefaultBinary+" \"$@\"\nexit $?\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	image := qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), qemutest.Hang())
	c := machine(image)
	c.Binary = script
	vm := start(t, c, Options{})
	waitConsole(t, vm, InitStarted)
	if n := len(running(t, image)); n != 2 {
		t.Fatalf("%d processes, want the script and QEMU", n)
	}
	if err := vm.Kill(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(patience); len(running(t, image)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			for _, pid := range running(t, image) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			t.Fatal("QEMU outlived the script that ran it")
		}
	}
}

// running are the processes that have arg among their arguments.
func running(t *testing.T, arg string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(data), "\x00"+arg+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func TestQuit(t *testing.T) {
	vm := start(t, machine(qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), qemutest.Hang())), Options{})
	waitConsole(t, vm, InitStarted)
	if err := vm.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit := waitDone(t, vm); exit.Code != 0 || exit.Shutdown != "host-qmp-quit" {
		t.Errorf("exit %+v", exit)
	}
}

// blocked is a console writer that never returns: a pipe nobody reads.
type blocked struct{ until chan struct{} }

func (b blocked) Write(p []byte) (int, error) {
	<-b.until
	return len(p), nil
}

func TestFullConsoleStopsNothing(t *testing.T) {
	b := blocked{make(chan struct{})}
	defer close(b.until)
	line := strings.Repeat("x", 1023) + "\n"
	var console strings.Builder
	vm := start(t, machine(qemutest.Kernel(t,
		qemutest.Say(line, 1<<10), qemutest.Say("guestinit: done status=0\n", 1), qemutest.PowerOff())), Options{Console: []io.Writer{b, &console}})
	exit := waitDone(t, vm)
	if exit.Shutdown != "guest-shutdown" {
		t.Fatalf("exit %+v; console %q", exit, vm.ConsoleTail())
	}
	if _, ok := vm.Watch().Find(InitDone); !ok {
		t.Error("the line after the flood was not seen")
	}
	if n, _ := vm.ConsoleLost(); n == 0 {
		t.Error("nothing was lost by a writer that took nothing")
	}
	if n := console.Len(); n < 1<<10*len(line) {
		t.Errorf("the writer beside it got %d bytes of %d", n, 1<<10*len(line))
	}
	if n := len(vm.ConsoleTail()); n != consoleTail {
		t.Errorf("tail of %d bytes, want %d", n, consoleTail)
	}
}

func TestConsoleWriterThatFails(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	vm := start(t, machine(qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), qemutest.PowerOff())), Options{Console: []io.Writer{full}})
	waitDone(t, vm)
	if n, err := vm.ConsoleLost(); n == 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("lost %d, %v; want ENOSPC", n, err)
	}
}

func TestQEMUKilledFromOutside(t *testing.T) {
	c := machine(qemutest.Kernel(t, qemutest.Say("guestinit: start\n", 1), qemutest.Hang()))
	c.Link = "link"
	vm := start(t, c, Options{})
	waitConsole(t, vm, InitStarted)
	if err := syscall.Kill(vm.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit := waitDone(t, vm)
	if exit.Signal != syscall.SIGKILL || exit.String() != "QEMU was killed by SIGKILL" {
		t.Errorf("exit %v", exit)
	}
	if n, err := vm.Link().Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("link read: %d, %v; want EOF", n, err)
	}
}

func TestQEMUDiesWithItsLauncher(t *testing.T) {
	qemutest.QEMU(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+qemutest.Kernel(t, qemutest.Hang()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer cmd.Process.Kill()
	buf := make([]byte, 128)
	n, _ := out.Read(buf)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatalf("launcher said %q", buf[:n])
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.Process.Kill()
	// Polled in slices: the runtime's own signals interrupt a poll.
	for limit := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if n == 1 {
			return
		}
		if err != nil && err != unix.EINTR || time.Now().After(limit) {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			t.Fatalf("QEMU %d outlived its launcher (%v)", pid, err)
		}
	}
}

func TestStartErrors(t *testing.T) {
	qemutest.QEMU(t)
	t.Run("no binary", func(t *testing.T) {
		c := machine("k")
		c.Binary = "/nonexistent/qemu"
		if _, err := Start(t.Context(), c, Options{}); err == nil || !strings.Contains(err.Error(), "--qemu") {
			t.Errorf("got %v, want the remedy", err)
		}
	})
	t.Run("not executable", func(t *testing.T) {
		c := machine("k")
		c.Binary = filepath.Join(t.TempDir(), "qemu")
		if err := os.WriteFile(c.Binary, []byte("garbage\x00"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(t.Context(), c, Options{}); err == nil || !strings.Contains(err.Error(), c.Binary) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("bad argument", func(t *testing.T) {
		c := machine(qemutest.Kernel(t, qemutest.Hang()))
		c.Extra = []string{"-nonsense"}
		vm := start(t, c, Options{})
		if exit := waitDone(t, vm); exit.Code != 1 || !strings.Contains(exit.Stderr, "nonsense") {
			t.Errorf("exit %+v", exit)
		}
	})
	t.Run("bad kernel", func(t *testing.T) {
		bad := filepath.Join(t.TempDir(), "kernel")
		if err := os.WriteFile(bad, []byte("not a kernel"), 0o644); err != nil {
			t.Fatal(err)
		}
		vm := start(t, machine(bad), Options{})
		if exit := waitDone(t, vm); exit.Code == 0 || exit.Stderr == "" {
			t.Errorf("exit %+v", exit)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Start(ctx, machine("k"), Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// The command that people paste must boot: a shell runs it, with the link as a
// socket that nobody connects to.
func TestPastedCommandBoots(t *testing.T) {
	qemutest.QEMU(t)
	c := machine(qemutest.Kernel(t, qemutest.Say("it's alive\n", 1), qemutest.PowerOff()))
	c.Append = `console=ttyS0 guestinit.x="a b" $HOME 'q'`
	c.Link = filepath.Join(t.TempDir(), "a,b.sock")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+c.Command())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "it's alive") {
		t.Errorf("%v; output %q from %s", err, out, c.Command())
	}
}
