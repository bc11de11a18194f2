package spawn

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spec"
)

func groups2() []spec.Group { return []spec.Group{group(2, "spin_wait")} }

// helpers are the roles that the test binary can play.
var helpers = map[string]func(){
	"spawner": func() {
		h, err := Spawn(Workload{Groups: groups2()})
		if err != nil {
			fmt.Println(err)
			return
		}
		h.Start()
		for _, pid := range h.WorkerPIDs() {
			fmt.Println("worker", pid)
		}
		fmt.Println("up")
		io.Copy(io.Discard, os.Stdin) // until the parent closes it
		reports, err := h.StopAndCollect()
		for _, r := range reports {
			fmt.Println("report", r.Completed, r.Iterations > 0)
		}
		fmt.Println("end", err, h.Close())
	},
}

// startHelper runs the test binary as a helper and reads its lines up to "up".
func startHelper(t *testing.T, attr *syscall.SysProcAttr) (cmd *exec.Cmd, stdin io.Closer, out *bufio.Scanner, lines []string) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=spawner")
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		if attr != nil && attr.Cloneflags != 0 && os.IsPermission(err) {
			unable(t, "making a PID namespace needs root")
		}
		t.Fatal(err)
	}
	out = bufio.NewScanner(stdout)
	for out.Scan() && out.Text() != "up" {
		lines = append(lines, out.Text())
	}
	return cmd, in, out, lines
}

// TestOrphansDie kills a spawner and looks for its workers, under the machine's
// init and under a subreaper (S14, S15).
func TestOrphansDie(t *testing.T) {
	for _, subreaper := range []uintptr{0, 1} {
		t.Run(fmt.Sprintf("subreaper=%d", subreaper), func(t *testing.T) {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, subreaper, 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
			cmd, _, _, lines := startHelper(t, nil)
			var pids []int
			for _, line := range lines {
				if n, ok := strings.CutPrefix(line, "worker "); ok {
					pid, _ := strconv.Atoi(n)
					pids = append(pids, pid)
				}
			}
			if len(pids) != 2 {
				t.Fatalf("the helper says %q", lines)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			for _, pid := range pids {
				waitGone(t, pid, subreaper == 1 || os.Getpid() == 1)
			}
		})
	}
}

// waitGone waits until a process has ended; a subreaper and PID 1 reap it.
func waitGone(t *testing.T, pid int, reap bool) {
	t.Helper()
	for range 100 {
		if reap {
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		if unix.Kill(pid, 0) == unix.ESRCH {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("worker %d outlives its spawner", pid)
}

// TestSpawnerAsPID1 has the spawner be PID 1 of a namespace: a parent pid of 1
// is then the living spawner, and workers run (the exemption of S14).
func TestSpawnerAsPID1(t *testing.T) {
	cmd, stdin, out, lines := startHelper(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	if len(lines) != 2 {
		t.Fatalf("the helper says %q", lines)
	}
	time.Sleep(100 * time.Millisecond)
	stdin.Close()
	var rest []string
	for out.Scan() {
		rest = append(rest, out.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(rest, "; "); got != "report true true; report true true; end <nil> <nil>" {
		t.Errorf("the helper says %q", got)
	}
}
