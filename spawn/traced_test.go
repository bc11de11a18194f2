package spawn

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
)

// traceEnv is the pid that the helper "tracer" attaches to.
const traceEnv = "GUESTINIT_SPAWN_TEST_TRACE"

// playTracer is a debugger that hangs: it attaches to a process, which stops at
// the next signal, and lets go of it when it ends.
func playTracer() {
	runtime.LockOSThread() // a tracer is a thread
	pid, err := strconv.Atoi(os.Getenv(traceEnv))
	if err == nil {
		err = unix.PtraceSeize(pid)
	}
	fmt.Println("up", err)
	io.Copy(io.Discard, os.Stdin)
}

// startTracer attaches to a process until let is called.
func startTracer(t *testing.T, pid int) (let func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=tracer", traceEnv+"="+strconv.Itoa(pid))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	let = func() {
		stdin.Close()
		cmd.Wait()
	}
	if line != "up <nil>\n" {
		let()
		unable(t, "tracing a worker needs the right to (see kernel.yama.ptrace_scope): %q", line)
	}
	return let
}

// TestTracedWorker has a debugger hang that traces a worker, which then neither
// stops nor can be reaped when it was killed: the wait for it is bounded, its
// sibling is collected, and its end is known if the debugger lets go in time
// (S27, S29). It stands for whatever the kernel holds beyond SIGKILL.
func TestTracedWorker(t *testing.T) {
	for _, c := range []struct {
		name  string
		inter bool // the debugger lets go between the kill and the bound on reaping
		want  report.ExitInfo
		text  string
	}{
		{"for good", false, report.ExitInfo{Kind: report.ExitWaitFailed}, "did not end within 3s of the kill"},
		{"for a while", true, report.ExitInfo{Kind: report.ExitTimedOut, Signal: 9}, "within 5s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, err := Spawn(Workload{Groups: groups2()})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			h.Start()
			waitPasses(t, h)
			traced := h.WorkerPIDs()[1]
			let := startTracer(t, traced)
			ended := make(chan struct{})
			if c.inter {
				go func() {
					defer close(ended)
					for state, _ := procState(traced); state != "Z"; state, _ = procState(traced) {
						time.Sleep(20 * time.Millisecond)
					}
					let()
				}()
			}
			begin := time.Now()
			reports := collect(t, h)
			if took := time.Since(begin); took > commitTimeout+reapTimeout+time.Second {
				t.Errorf("collecting took %v", took)
			}
			checkOrder(t, reports, 2)
			if !reports[0].Completed {
				t.Errorf("the other worker: %+v", reports[0].ExitInfo)
			}
			if r := reports[1]; r.Completed || !r.Partial || r.Iterations == 0 {
				t.Errorf("the traced worker: completed %v, partial %v, %d passes", r.Completed, r.Partial, r.Iterations)
			}
			checkExit(t, reports[1].ExitInfo, c.want, c.text)
			err = h.Close()
			if Owns(traced) {
				t.Error("the worker is still owned after Close")
			}
			if c.inter {
				<-ended
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d did not end within 3s of SIGKILL", traced)) {
				t.Errorf("Close says %v", err)
			}
			let()
			if pid, err := unix.Wait4(traced, nil, 0, nil); pid != traced && os.Getpid() != 1 { // an init reaps orphans itself
				t.Errorf("wait for the worker that was let go: %d, %v", pid, err)
			}
		})
	}
}
