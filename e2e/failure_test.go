package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guestinit/guestinit/report"
)

const shortSpec = "version: 1\nduration: 300ms\ngroups: [{workers: 1, work: spin_wait}]\n"

// TestGuestFailures breaks guests: each ends with its exit status and a message
// that names the cause.
func TestGuestFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		spec   string
		status int
		stderr []string
	}{
		{"no init", []string{"--append", "rdinit=/nowhere root=/dev/nowhere"}, shortSpec, 3, []string{"panic"}},
		{"deadline", []string{"--timeout", "4s"}, strings.Replace(shortSpec, "300ms", "60s", 1), 4, []string{"4s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg"}, c.args...)
			guestinit(t, c.spec, append(args, "-")...).want(t, c.status, c.stderr...)
		})
	}
}

// TestSignalsToInit has a program of the workload send signals to PID 1, which
// outlives a hang-up and takes another for its end, with a report and no pass.
func TestSignalsToInit(t *testing.T) {
	const text = "version: 1\nduration: 1m\ngroups:\n- {workers: 1, work: spin_wait}\n- {workers: 1, work: {type: exec, argv: [sh, -c, 'kill -HUP 1; kill -TERM 1; while :; do :; done']}}\n"
	r := guestinit(t, text, "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--json", "-", "-")
	r.want(t, 5, "the guest gave up: ended early", "terminated")
	if rep := r.report(t); rep.Verdict != report.Fail || len(rep.Workers) != 2 || rep.Workers[0].Iterations == 0 {
		t.Errorf("%s, %d workers, %q", rep.Verdict, len(rep.Workers), rep.Failures)
	}
	fault := strings.Replace(text, "kill -HUP 1; kill -TERM 1", "kill -SEGV 1", 1)
	guestinit(t, fault, "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "-").want(t, 3, "PID 1 ended with status 2: SIGSEGV: segmentation violation")
}

// TestRefusals makes requests that cannot be met.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		stdin  string
		status int
		stderr string
	}{
		{"no command", nil, "", 2, ""},
		{"unknown command", []string{"rum"}, "", 2, `did you mean "run"?`},
		{"unknown flag", []string{"run", "--kernle", "x"}, "", 2, "kernle"},
		{"garbage spec", []string{"run", "-"}, "\x00\xff{{{", 2, "stdin"},
		{"unknown type", []string{"local", "-"}, strings.Replace(shortSpec, "spin_wait", "spin_wiat", 1), 2, `did you mean "spin_wait"?`},
		{"missing spec", []string{"local", "/nonexistent.yaml"}, "", 2, "/nonexistent.yaml"},
		{"missing kernel", []string{"run", "--kernel", "/nonexistent", "-"}, shortSpec, 5, "/nonexistent"},
		{"missing QEMU", []string{"run", "--qemu", "/nonexistent/qemu", "-"}, shortSpec, 5, "/nonexistent/qemu"},
		{"KVM where there is none", []string{"run", "--accel", "kvn", "-"}, shortSpec, 2, "kvn"},
		{"odd memory", []string{"run", "--memory", "lots", "-"}, shortSpec, 2, "lots"},
	} {
		t.Run(c.name, func(t *testing.T) {
			guestinit(t, c.stdin, c.args...).want(t, c.status, c.stderr)
		})
	}
}

// TestNoKernelAnywhere has an empty cache and no kernel of the machine's own.
func TestNoKernelAnywhere(t *testing.T) {
	if files, _ := filepath.Glob("/boot/vmlinuz-*"); len(files) > 0 {
		t.Skip("this machine has kernels in /boot; run in a container without")
	}
	env := []string{"GUESTINIT_KERNEL=", "GUESTINIT_CACHE=" + t.TempDir()}
	guestinitEnv(t, env, shortSpec, "run", "-").want(t, 5, "guestinit kernel fetch")
}

// TestOutputs checks where data and messages go.
func TestOutputs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	r := guestinit(t, shortSpec, "local", "--json", file, "-")
	r.want(t, 0)
	if !strings.Contains(r.stdout, "PASS") || !strings.Contains(r.stdout, "spin_wait") {
		t.Errorf("the table is\n%s", r.stdout)
	}
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), `"verdict": "pass"`) {
		t.Errorf("the JSON file: %v\n%.500s", err, data)
	}
	if help := guestinit(t, "", "run", "--help"); help.status != 0 || !strings.Contains(help.stdout, "-dry-run") {
		t.Errorf("help: %+v", help)
	}
	if types := guestinit(t, "", "types", "--json"); types.status != 0 || !strings.Contains(types.stdout, `"name": "futex_ping_pong"`) {
		t.Errorf("types: %+v", types)
	}
	if ok := guestinit(t, shortSpec, "spec", "validate", "-"); ok.status != 0 || !strings.Contains(ok.stdout, "ok") {
		t.Errorf("validate: %+v", ok)
	}
}

// TestFaultLocally has the same failure on this machine, without a VM.
func TestFaultLocally(t *testing.T) {
	r := guestinit(t, "version: 1\nduration: 500ms\ngroups: [{workers: 2, work: {type: fault_injection, kind: exit}}]\n", "local", "--json", "-", "-")
	r.want(t, 1)
	for _, w := range r.report(t).Workers {
		if w.ExitInfo == nil || w.ExitInfo.Code != 3 {
			t.Errorf("exit info %+v", w.ExitInfo)
		}
	}
}

// TestInterruptedLocally sends signals to a local run that has a minute left: it
// ends at once, with a report of what was done, which is no pass.
func TestInterruptedLocally(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			t.Logf("%v is ignored here, as by nohup, and so it is by the program", sig)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "local", "--json", "-", "-")
		var out, text bytes.Buffer
		cmd.Stdin, cmd.Stdout = strings.NewReader("{version: 1, duration: 1m, groups: [{workers: 2, work: spin_wait}]}"), &out
		pipe, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			fmt.Fprintln(&text, lines.Text())
			if strings.Contains(lines.Text(), "phase:") {
				cmd.Process.Signal(sig)
			}
		}
		cmd.Wait()
		r := result{cmd.ProcessState.ExitCode(), out.String(), text.String()}
		r.want(t, 5, "interrupted")
		if rep := r.report(t); rep.Verdict != report.Fail || len(rep.Workers) != 2 || len(rep.Failures) == 0 || !strings.Contains(rep.Failures[0], "interrupted") {
			t.Errorf("%v: %s, %d workers, %q", sig, rep.Verdict, len(rep.Workers), rep.Failures)
		}
	}
}

// TestPID1OfContainer runs the program as the first process of a PID namespace, as
// in a container: it is the command there, and no guest's init.
func TestPID1OfContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a PID namespace takes root; run as root")
	}
	cmd := exec.Command(program, "version")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "guestinit ") || strings.Contains(string(out), "start") {
		t.Errorf("%v: %s", err, out)
	}
}
