package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
)

// TestSquatter is a program that will not go, for the tests below: SQUAT is the
// cgroup that it moves to, below the one that it is born in.
func TestSquatter(t *testing.T) {
	at := os.Getenv("SQUAT")
	if at == "" {
		return
	}
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	root, own, err := spawn.Cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, own, at)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(dir, "cgroup.procs", "0"); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LONE") == "" { // a child in a session of its own outlives its parent
		child := exec.Command(os.Args[0], "-test.run=^TestSquatter$")
		child.Env = append(os.Environ(), "SQUAT=.", "LONE=1")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
}

// hindrance is something that gets in the way of a run while its second step
// lasts. base is the directory of its cgroups.
type hindrance struct {
	spec    string // of the second step; PROGRAM is this test
	do      func(t *testing.T, base string)
	undo    func(t *testing.T, base string) // what no run can undo
	failure string                          // of the run; "" for none
	killed  bool                            // the worker of the step did not end by itself
}

var hindrances = map[string]hindrance{
	"program that ignores signals, in a cgroup of its own": {
		spec: `groups: [{name: w, workers: 1, work: spin_wait}], cgroups: [{name: x}],
		       ops: [{run_program: {path: PROGRAM, args: [-test.run=^TestSquatter$], env: [SQUAT=own/deep], cgroup: x}}]`,
		do: func(t *testing.T, base string) { await(t, base+"/x/own/deep") },
	},
	"program that ignores signals, in a cgroup that is removed": {
		spec: `groups: [{name: w, workers: 1, work: spin_wait}], cgroups: [{name: x, cgroups: [{name: y}]}], hold: {loop: 100ms},
		       ops: [{add_cgroup: x/z}, {run_program: {name: p, path: PROGRAM, args: [-test.run=^TestSquatter$], env: [SQUAT=own], cgroup: x/z}}, {remove_cgroup: x/z}]`,
	},
	"foreign process": {
		spec: `cgroups: [{name: x, groups: [{name: w, workers: 1, work: spin_wait}]}]`,
		do: func(t *testing.T, base string) {
			stray := exec.Command(os.Args[0], "-test.run=^TestSquatter$")
			stray.Env = append(os.Environ(), "SQUAT=.", "LONE=1")
			if err := stray.Start(); err != nil {
				t.Fatal(err)
			}
			if err := writeFile(base+"/x", "cgroup.procs", strconv.Itoa(stray.Process.Pid)); err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { _ = stray.Process.Kill(); _ = stray.Wait() })
		},
	},
	"foreign cgroups": {
		spec: `cgroups: [{name: x, cgroups: [{name: y, groups: [{name: w, workers: 1, work: spin_wait}]}]}]`,
		do: func(t *testing.T, base string) {
			for _, dir := range []string{"/x/z/deep", "/stray"} {
				if err := os.MkdirAll(base+dir, 0o755); err != nil {
					t.Error(err)
				}
			}
		},
	},
	"frozen by another": {
		spec: `cgroups: [{name: x, cgroups: [{name: y, groups: [{name: w, workers: 1, work: spin_wait}]}]}]`,
		do: func(t *testing.T, base string) {
			if err := writeFile(base+"/x", "cgroup.freeze", "1"); err != nil {
				t.Error(err)
			}
		},
	},
	"worker killed": {
		spec: `cgroups: [{name: x, groups: [{name: w, workers: 1, work: spin_wait}]}]`,
		do: func(t *testing.T, base string) {
			pids, err := fields(base+"/x", "cgroup.procs")
			if err != nil || len(pids) != 1 {
				t.Fatalf("processes %q, %v", pids, err)
			}
			pid, _ := strconv.Atoi(pids[0])
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		},
		killed: true,
	},
	"cgroup removed by another": {
		spec: `cgroups: [{name: x}, {name: y, groups: [{name: w, workers: 1, work: spin_wait}]}], hold: {loop: 50ms}, ops: [{freeze: x}]`,
		do: func(t *testing.T, base string) {
			if err := os.Remove(base + "/x"); err != nil {
				t.Error(err)
			}
		},
		failure: "step bad: ops[0].freeze: cgroup x: cgroup.freeze: no such file or directory",
	},
	"something mounted on the cgroup": {
		spec: `cgroups: [{name: x, groups: [{name: w, workers: 1, work: spin_wait}]}]`,
		do: func(t *testing.T, base string) {
			if err := unix.Mount("none", base+"/x", "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(base+"/x/kept/inside", 0o755); err != nil {
				t.Error(err)
			}
		},
		undo: func(t *testing.T, base string) {
			if left, err := os.ReadDir(base + "/x"); err != nil || len(left) != 1 || left[0].Name() != "kept" {
				t.Errorf("what was mounted there has %v now, %v", left, err)
			}
			if _, err := os.Stat(base + "/x/kept/inside"); err != nil {
				t.Error(err)
			}
			if err := unix.Unmount(base+"/x", 0); err != nil {
				t.Error(err)
			}
			for _, dir := range []string{base + "/x", base} {
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			}
		},
		failure: "step bad: cgroup x: remove cgroup: something is mounted on ",
	},
}

// TestMemoryHigh: workers that the kernel holds back for their memory stop on time,
// and what of their cgroup goes on is held back again.
func TestMemoryHigh(t *testing.T) {
	controllers(t, "memory")
	high := ""
	p := playWith(t, t.Context(), `
version: 1
duration: 2500ms
backdrop:
  cgroups:
    - name: outer
      memory.high: 6M
      cgroups:
        - {name: a, groups: [{name: a, workers: 1, work: {type: numa_working_set_sweep, region_kib: 16384, sweep_period: 0s}}]}
        - {name: b, groups: [{name: b, workers: 1, work: {type: numa_working_set_sweep, region_kib: 16384, sweep_period: 0s}}]}
steps:
  - {name: both}
  - {name: one, ops: [{stop_cgroup: outer/a}]}
`, nil, func(e Event) {
		if e.Name == "one" && e.Text == "begins" {
			f, err := fields(fmt.Sprintf("%s/guestinit-%d/outer", cgroupRoot(t), os.Getpid()), "memory.high")
			high = fmt.Sprint(f, err)
		}
	})
	leftovers(t)
	p.passes(t)
	if high != "[6291456] <nil>" {
		t.Errorf("memory.high is %s when one of two groups was stopped", high)
	}
}

// TestBoundCgroup: a cgroup of others that is mounted inside of one of the run's is
// theirs: neither it nor what is in it goes.
func TestBoundCgroup(t *testing.T) {
	controllers(t)
	theirs := fmt.Sprintf("%s/guestinit-%d-theirs", cgroupRoot(t), os.Getpid())
	if err := os.MkdirAll(theirs+"/inside", 0o755); err != nil {
		t.Fatal(err)
	}
	p := playWith(t, t.Context(), "version: 1\nduration: 100ms\ncgroups: [{name: x, cgroups: [{name: y, groups: [{workers: 1, work: spin_wait}]}]}]", nil, func(e Event) {
		if e.Text == "begins" {
			at := fmt.Sprintf("%s/guestinit-%d/x/z", cgroupRoot(t), os.Getpid())
			if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount(theirs, at, "", unix.MS_BIND, "")); err != nil {
				t.Error(err)
			}
		}
	})
	if got := strings.Join(p.Failures, "\n"); !strings.Contains(got, "/x/z; umount it") {
		t.Errorf("failures %q", got)
	}
	base := fmt.Sprintf("%s/guestinit-%d", cgroupRoot(t), os.Getpid())
	if err := unix.Unmount(base+"/x/z", 0); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{theirs + "/inside", theirs, base + "/x/z", base + "/x", base} {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
	leftovers(t)
}

// await waits for a cgroup with a process in it.
func await(t *testing.T, dir string) {
	t.Helper()
	for range 1000 {
		if pids, err := fields(dir, "cgroup.procs"); err == nil && len(pids) > 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("no process is in %s", dir)
}

// TestTeardown: whatever gets in the way of a step, its cgroups are gone after it,
// what ran is reported, and what the run could not do is among its failures.
func TestTeardown(t *testing.T) {
	controllers(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range hindrances {
		t.Run(name, func(t *testing.T) {
			base := fmt.Sprintf("%s/guestinit-%d", cgroupRoot(t), os.Getpid())
			text := "version: 1\nduration: 600ms\nbackdrop: {groups: [{name: base, workers: 1, work: spin_wait}]}\nsteps:\n- {name: fine, hold: 50ms}\n- {name: bad, " +
				strings.ReplaceAll(h.spec, "PROGRAM", self) + "}\n"
			done := false
			p := playWith(t, t.Context(), text, nil, func(e Event) {
				if e.Kind == EventPhase && e.Name == "bad" && e.Text == "begins" && h.do != nil && !done {
					done = true
					h.do(t, base)
				}
			})
			if h.undo != nil {
				h.undo(t, base)
			}
			leftovers(t)
			failures := strings.Join(p.Failures, "\n")
			if h.failure == "" && failures != "" || !strings.Contains(failures, h.failure) {
				t.Errorf("failures %q, want %q", failures, h.failure)
			}
			if len(p.workers) != 2 {
				t.Fatalf("%d workers", len(p.workers))
			}
			for _, w := range p.workers {
				if mine := w.GroupIndex == 1; w.Completed == (mine && h.killed) {
					t.Errorf("group %d: completed %v, %+v", w.GroupIndex, w.Completed, w.ExitInfo)
				}
			}
			if !slices.ContainsFunc(p.Run.Phases, func(ph report.Phase) bool { return ph.Name == "bad" }) {
				t.Errorf("phases %+v", p.Run.Phases)
			}
		})
	}
}
