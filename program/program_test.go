package program

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain doubles as the programs that the tests run.
func TestMain(m *testing.M) {
	switch os.Getenv("PROGRAM_TEST") {
	case "exit":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
		os.Exit(3)
	case "flood":
		for i := range 10_000 {
			fmt.Printf("line %d\n", i)
		}
	case "stubborn":
		signal.Ignore(syscall.SIGINT)
		fmt.Println("ready")
		time.Sleep(time.Minute)
	case "polite":
		ints := make(chan os.Signal, 1)
		signal.Notify(ints, syscall.SIGINT)
		fmt.Println("ready")
		<-ints
		fmt.Println("bye")
	case "crash":
		unix.Kill(os.Getpid(), unix.SIGKILL)
		time.Sleep(time.Minute)
	default:
		os.Exit(m.Run())
	}
}

func start(t *testing.T, mode string, head, tail int) *Program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(Options{Path: exe, Env: []string{"PROGRAM_TEST=" + mode}, Head: head, Tail: tail})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(unix.SIGKILL, time.Second) })
	return p
}

func (p *Program) waitFor(t *testing.T, text string) {
	t.Helper()
	for range 1000 {
		if strings.Contains(p.Output(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%q is not in the output %q", text, p.Output())
}

func TestExit(t *testing.T) {
	for mode, want := range map[string]string{"exit": "exit status 3", "crash": "killed by SIGKILL", "flood": "exit status 0"} {
		if got := start(t, mode, 100, 100).Exit().String(); got != want {
			t.Errorf("%s: %s, want %s", mode, got, want)
		}
	}
}

func TestOutput(t *testing.T) {
	p := start(t, "exit", 100, 0)
	p.Exit()
	if got := p.Output(); got != "out\nerr\n" {
		t.Errorf("output %q", got)
	}
	p = start(t, "flood", 14, 20)
	p.Exit()
	if got := p.Output(); !strings.HasPrefix(got, "line 0\nline 1\n\n[") || !strings.HasSuffix(got, " bytes left out]\nline 9998\nline 9999\n") {
		t.Errorf("bounded output %q", got)
	}
}

func TestStop(t *testing.T) {
	p := start(t, "polite", 0, 100)
	p.waitFor(t, "ready")
	if killed, err := p.Stop(unix.SIGINT, 10*time.Second); killed || err != nil || !strings.Contains(p.Output(), "bye") {
		t.Errorf("polite: killed %v, %v, %q", killed, err, p.Output())
	}
	p = start(t, "stubborn", 0, 100)
	p.waitFor(t, "ready")
	if killed, err := p.Stop(unix.SIGINT, 50*time.Millisecond); !killed || err != nil || p.Exit().Signal != int(unix.SIGKILL) {
		t.Errorf("stubborn: killed %v, %v, %v", killed, err, p.Exit())
	}
}

func TestOwns(t *testing.T) {
	p := start(t, "stubborn", 0, 100)
	if !Owns(p.PID()) || Owns(os.Getpid()) {
		t.Errorf("Owns: %v of the program, %v of this process", Owns(p.PID()), Owns(os.Getpid()))
	}
	if pgid, err := unix.Getpgid(p.PID()); err != nil || pgid != p.PID() {
		t.Errorf("process group %d, %v", pgid, err)
	}
	p.Stop(unix.SIGKILL, time.Second)
	if Owns(p.PID()) {
		t.Error("a program that was reaped is owned")
	}
}

func TestStartErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/nonexistent/scheduler": "start /nonexistent/scheduler: no such file or directory",
		"ls":                     "start ls: no such file or directory", // not from $PATH
		plain:                    "start " + plain + ": permission denied",
	} {
		if _, err := Start(Options{Path: path}); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}
