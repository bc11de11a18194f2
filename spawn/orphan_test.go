package spawn

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
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

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

func groups2() []spec.Group { return []spec.Group{group(2, "spin_wait")} }

// helpers are the roles that the test binary can play.
var helpers = map[string]func(){
	"limits":  playLimits,
	"crowd":   playCrowd,
	"program": playProgram,
	"tracer":  playTracer,
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
		for end := time.Now().Add(time.Minute); slices.Contains(h.SnapshotIterations(), 0) && time.Now().Before(end); time.Sleep(time.Millisecond) {
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

// limitEnv names the helper of limitHelpers to play.
const limitEnv = "GUESTINIT_SPAWN_TEST_LIMIT"

func playLimits() {
	if err := limitHelpers[os.Getenv(limitEnv)](); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

// runHelper runs a helper of limitHelpers to its end.
func runHelper(t *testing.T, name string, attrs ...*syscall.SysProcAttr) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=limits", limitEnv+"="+name)
	for _, a := range attrs {
		cmd.SysProcAttr = a
	}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok\n" {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// asNobody runs a helper without privileges, as a user of its own.
func asNobody(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		unable(t, "running a helper as another user needs root")
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54323, Gid: 54323}}
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

// playCrowd gives birth to workers for as long as it lives.
func playCrowd() {
	fmt.Println("up")
	for {
		h, err := Spawn(Workload{Groups: []spec.Group{group(20, "spin_wait"), box("gi-box", 3, "spin_wait")}})
		if err != nil {
			fmt.Println(err)
			return
		}
		h.Start()
		h.Close()
	}
}

// TestSpawnerDiesAnyTime kills a spawner while it gives birth, at a random moment
// each time, so that some workers have armed their tie to it and some have not:
// a second later none is there, whoever inherits them, and if the spawner was
// PID 1 too (S14).
func TestSpawnerDiesAnyTime(t *testing.T) {
	for _, c := range []struct {
		name      string
		subreaper uintptr
		flags     uintptr
	}{{"subreaper=0", 0, 0}, {"subreaper=1", 1, 0}, {"PID namespace", 0, syscall.CLONE_NEWPID}} {
		t.Run(c.name, func(t *testing.T) {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, c.subreaper, 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
			for range scaled(20) {
				killCrowd(t, c.flags)
			}
		})
	}
}

// killCrowd starts a spawner, kills it while it gives birth and waits until
// nothing of it is left.
func killCrowd(t *testing.T, flags uintptr) {
	t.Helper()
	limit := time.Second
	if os.Getpid() == 1 { // an emulated machine
		limit = 5 * time.Second
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=crowd", "GUESTINIT_PID1=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags} // workers stay in its session
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		if flags != 0 && os.IsPermission(err) {
			unable(t, "making a PID namespace needs root")
		}
		t.Fatal(err)
	}
	out.Read(make([]byte, 3))
	time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
	sid := cmd.Process.Pid
	born := sessionLives(sid)
	cmd.Process.Kill()
	begin := time.Now()
	cmd.Wait()
	waitFor(t, "orphans of the crowd to go", func() bool { return !sessionLives(sid) })
	if took := time.Since(begin); took > limit || !born {
		t.Errorf("the spawner lived: %v; its workers were gone after %v", born, took)
	}
}

// sessionLives tells whether a process of the session has not ended. It reaps
// those that became children of this process.
func sessionLives(sid int) bool {
	lives := false
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // state, ppid, pgrp, session
		f := strings.Fields(rest)
		if len(f) < 4 || f[3] != strconv.Itoa(sid) {
			continue
		}
		if f[0] != "Z" {
			lives = true
		} else if f[1] == strconv.Itoa(os.Getpid()) {
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
	return lives
}

// TestOrphanBeforeTheTie has a worker find another parent than the spawner, as
// one does whose spawner died before the tie was made: it ends with status 0, and
// its sentinel says so (S14, S29).
func TestOrphanBeforeTheTie(t *testing.T) {
	w := Workload{Groups: []spec.Group{group(3, "spin_wait")}}
	plans, err := w.admit()
	if err != nil {
		t.Fatal(err)
	}
	h := &Handle{groups: w.Groups, plans: plans, cloner: theCloner(), keeper: takeKeeper()}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.arena, err = newArena(plans, 0, 0); err != nil {
		t.Fatal(err)
	}
	h.arena.slabs[1].SpawnerPID = 4_000_000
	h.cloner.do(func() { err = h.bearAll() })
	if err == nil {
		h.keeper.do(func() { err = h.awaitBirth() })
	}
	if err != nil {
		t.Fatal(err)
	}
	reports := collect(t, h)
	checkOrder(t, reports, 3)
	if r := reports[1]; r.Completed || r.Partial || r.TID != h.procs[1].pid || r.ExitInfo.Kind != report.ExitExited || r.ExitInfo.Code != 0 || r.ExitInfo.Text != "found its spawner gone" {
		t.Errorf("the orphan: %+v, %+v", r, r.ExitInfo)
	}
	if !reports[0].Completed || !reports[2].Completed {
		t.Errorf("the others: %+v, %+v", reports[0].ExitInfo, reports[2].ExitInfo)
	}
}

// TestGrandchildrenDie stops a worker and the child that it has just forked, and
// kills the worker alone: the child goes with it when the worker is reaped, by
// whatever way the handle ends (S16, S30, S31).
func TestGrandchildrenDie(t *testing.T) {
	for name, end := range map[string]func(h *Handle, worker int){
		"worker killed, collected": func(h *Handle, worker int) {
			unix.Kill(worker, unix.SIGKILL)
			h.StopAndCollect()
		},
		"Kill":  func(h *Handle, _ int) { h.Kill() },
		"Close": func(h *Handle, _ int) { h.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, group(1, "fork_exit"))
			waitPasses(t, h)
			worker := h.WorkerPIDs()[0]
			child := stopWithChild(t, worker)
			end(h, worker)
			waitGoneOrZombie(t, child)
			if r := h.closed.Load(); !r {
				if reports := collect(t, h); reports[0].Completed || reports[0].ExitInfo.Signal != 9 {
					t.Errorf("the worker: %+v", reports[0].ExitInfo)
				}
			}
			unix.Wait4(child, nil, unix.WNOHANG, nil) // it may have become ours
		})
	}
}

// stopWithChild stops the worker's process group at a moment when the worker has
// a child that has not ended, and returns the child.
func stopWithChild(t *testing.T, worker int) (child int) {
	t.Helper()
	waitFor(t, "a child to stop", func() bool {
		unix.Kill(-worker, unix.SIGSTOP)
		time.Sleep(2 * time.Millisecond)
		for _, pid := range sameProgram() {
			if state, parent := procState(pid); parent == worker && state == "T" {
				child = pid
				return true
			}
		}
		unix.Kill(-worker, unix.SIGCONT)
		return false
	})
	return child
}

// procState is the state and the parent of a process; empty if it is gone.
func procState(pid int) (state string, parent int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fmt.Sscan(rest, &state, &parent)
	return state, parent
}

func waitGoneOrZombie(t *testing.T, pid int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("grandchild %d to die", pid), func() bool {
		state, _ := procState(pid)
		return state == "" || state == "Z" || state == "X"
	})
}

// TestProgramsChildDies kills a program alone and does no more than look. Its child
// ignores SIGHUP and has no tie to anybody, and cgroups of programs are emptied
// only when all is collected: it is the process group that takes it along, when
// the program is reaped (S16).
func TestProgramsChildDies(t *testing.T) {
	h, err := Spawn(Workload{Groups: []spec.Group{programGroup(1, "nohup", "child", "sleep=1h")}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.Start()
	worker, child := h.WorkerPIDs()[0], 0
	waitFor(t, "the program's child", func() bool {
		for _, pid := range sameProgram() {
			if _, parent := procState(pid); parent == worker {
				child = pid
			}
		}
		return child != 0
	})
	unix.Kill(worker, unix.SIGKILL)
	waitFor(t, "the program's end", func() bool { return !h.Look() })
	waitGoneOrZombie(t, child)
	if r := collect(t, h)[0]; r.Completed || r.ExitInfo.Signal != 9 {
		t.Errorf("the program: %+v", r.ExitInfo)
	}
	unix.Wait4(child, nil, unix.WNOHANG, nil) // it may have become ours
}
