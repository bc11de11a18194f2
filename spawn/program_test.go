package spawn

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// playProgram is the program of the tests: its arguments are what it does, in
// order.
func playProgram() {
	for args := os.Args[1:]; len(args) > 0; args = args[1:] {
		switch what, value, _ := strings.Cut(args[0], "="); what {
		case "out":
			fmt.Println(value)
		case "err":
			fmt.Fprintln(os.Stderr, value)
		case "exit":
			code, _ := strconv.Atoi(value)
			os.Exit(code)
		case "kill":
			number, _ := strconv.Atoi(value)
			unix.Kill(os.Getpid(), unix.Signal(number))
			time.Sleep(time.Minute)
		case "sleep":
			d, _ := time.ParseDuration(value)
			time.Sleep(d)
		case "busy":
			d, _ := time.ParseDuration(value)
			for end := time.Now().Add(d); time.Now().Before(end); {
			}
		case "ignore":
			signal.Ignore(unix.SIGTERM)
			fmt.Println("ready")
		case "nohup":
			signal.Ignore(unix.SIGHUP)
		case "trap":
			c := make(chan os.Signal, 1)
			number, _ := strconv.Atoi(value)
			signal.Notify(c, syscall.Signal(number))
			fmt.Println("ready")
			<-c
		case "flood":
			n, _ := strconv.Atoi(value)
			for i := range n {
				fmt.Printf("line %07d\n", i)
			}
		case "cat":
			b, err := os.ReadFile(value)
			fmt.Printf("%s%v\n", bytes.ReplaceAll(b, []byte{0}, []byte{'\n'}), err)
		case "cwd":
			fmt.Println(os.Getwd())
		case "env":
			fmt.Println(strings.Join(os.Environ(), "\n"))
		case "fds":
			fds, _ := filepath.Glob("/proc/self/fd/*")
			for _, fd := range fds {
				to, _ := os.Readlink(fd)
				fmt.Println(filepath.Base(fd), to)
			}
		case "child", "session":
			cmd := exec.Command("/proc/self/exe", "sleep=1h")
			cmd.Stdout = os.Stdout
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: what == "session"}
			if err := cmd.Start(); err != nil {
				fmt.Println(err)
			}
			fmt.Println(cmd.Process.Pid)
		}
	}
}

// programGroup is a group of workers that play the program of the tests.
func programGroup(n int, does ...string) spec.Group {
	self, _ := os.Executable()
	argv := []any{self}
	for _, d := range does {
		argv = append(argv, d)
	}
	return group(n, "exec", "argv", argv, "env", map[string]any{helperEnv: "program"})
}

// runPrograms runs groups for a time, or until all have ended.
func runPrograms(t *testing.T, d time.Duration, groups ...spec.Group) ([]report.Worker, *Handle) {
	t.Helper()
	h := start(t, groups...)
	reports, err := h.Run(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	return reports, h
}

// TestProgramsEnd has programs end in every way, before and after the request to
// stop.
func TestProgramsEnd(t *testing.T) {
	impatient := programGroup(1, "ignore", "sleep=1h")
	impatient.Work.Params["grace"] = "300ms"
	interrupted := programGroup(1, "trap=2", "out=interrupted")
	interrupted.Work.Params["stop_signal"] = "int"
	type want struct {
		group     spec.Group
		completed bool
		exit      report.ExitInfo
		out       string
	}
	cases := []want{
		{group: programGroup(1, "out=a", "err=b"), completed: true, out: "a\n"},
		{group: programGroup(1, "exit=3"), exit: report.ExitInfo{Kind: report.ExitExited, Code: 3}},
		{group: programGroup(1, "kill=9"), exit: report.ExitInfo{Kind: report.ExitSignaled, Signal: 9}},
		{group: programGroup(1, "kill=15"), exit: report.ExitInfo{Kind: report.ExitSignaled, Signal: 15}},
		{group: programGroup(1, "out=ready", "sleep=1h"), completed: true, out: "ready\n"},
		{group: programGroup(1, "trap=15", "exit=143"), completed: true, out: "ready\n"},
		{group: programGroup(1, "trap=15", "exit=5"), exit: report.ExitInfo{Kind: report.ExitExited, Code: 5}, out: "ready\n"},
		{group: interrupted, completed: true, out: "ready\ninterrupted\n"},
		{group: impatient, exit: report.ExitInfo{Kind: report.ExitTimedOut, Signal: 9}, out: "ready\n"},
	}
	groups := []spec.Group{group(1, "spin_wait")}
	for _, c := range cases {
		groups = append(groups, c.group)
	}
	// All that a program says before it is stopped, it has said by then, also
	// under emulation beside nine others.
	h := start(t, groups...)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for i, c := range cases {
			pid := h.WorkerPIDs()[i+1]
			await(t, fmt.Sprint(c.group.Work.Params["argv"]), func() bool {
				if strings.HasPrefix(c.out, "ready") {
					return h.arena.programs[i].stdout.output().Bytes >= uint64(len("ready\n"))
				}
				// A leader can be a zombie while its other threads still die: what
				// counts is that the process could be reaped.
				var si unix.Siginfo
				err := unix.Waitid(unix.P_PID, pid, &si, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
				return err == unix.ECHILD || err == nil && si.Signo != 0
			})
		}
	}()
	reports, err := h.Run(ctx, 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		r := &reports[i+1]
		e := report.ExitInfo{}
		if r.ExitInfo != nil {
			e = *r.ExitInfo
		}
		if r.Completed != c.completed || e.Kind != c.exit.Kind || e.Code != c.exit.Code || e.Signal != c.exit.Signal {
			t.Errorf("%v: completed %v, %+v", c.group.Work.Params["argv"], r.Completed, e)
		}
		if r.Stdout == nil || r.Stdout.Head != c.out || r.WorkUnits != 1 || r.Iterations != 1 || r.WallNs == 0 || r.CPUNs == 0 {
			t.Errorf("%v: stdout %+v, %d units of work in %d ns, %d on a CPU", c.group.Work.Params["argv"], r.Stdout, r.WorkUnits, r.WallNs, r.CPUNs)
		}
	}
	if e := reports[1].Stderr; e == nil || e.Head != "b\n" || e.Bytes != 2 {
		t.Errorf("stderr is %+v", e)
	}
}

// TestProgramsLookAround has a program tell what it was born into.
func TestProgramsLookAround(t *testing.T) {
	nice := 7
	g := programGroup(1, "cat=/proc/self/comm", "cat=/proc/self/status", "cat=/proc/self/stat", "cat=/proc/self/cmdline", "cwd", "env", "fds")
	g.Comm, g.Nice, g.Affinity = "gi-program", &nice, &spec.Affinity{Exact: spec.CPUList{0}}
	g.Work.Params["cwd"] = "/proc"
	env := g.Work.Params["env"].(map[string]any)
	env["COLOUR"], env["HOME"] = "blue green", "/elsewhere"
	reports, _ := runPrograms(t, time.Minute, g)
	r := &reports[0]
	if !r.Completed {
		t.Fatalf("%+v", r.ExitInfo)
	}
	out := r.Stdout.Head
	for _, want := range []string{
		"gi-program\n<nil>\n", "SigBlk:\t0000000000000000\n", "Cpus_allowed_list:\t0\n", "\ncwd\nenv\nfds\n", "/proc <nil>\n",
		"COLOUR=blue green\n", "HOME=/elsewhere\n", "PATH=/", "0 /dev/null\n", "1 pipe:", "2 pipe:",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the program does not say %q", want)
		}
	}
	if strings.Contains(out, "3 pipe:") || strings.Contains(out, "HOME=/\n") {
		t.Error("the program was born with more than it should have")
	}
	if t.Failed() {
		t.Log(out)
	}
	for name, want := range map[string]string{"comm": "gi-program", "nice": "7", "affinity": "0"} {
		if s := r.Settings[name]; s.Asked != want || s.Got != want {
			t.Errorf("%s: %+v, want %s", name, s, want)
		}
	}
}

// TestProgramsAreMeasured compares what the kernel tells of a busy program.
func TestProgramsAreMeasured(t *testing.T) {
	reports, _ := runPrograms(t, time.Minute, programGroup(2, "busy=300ms"))
	for _, r := range reports {
		if r.CPUNs < 50e6 || r.WallNs < 300e6 || r.CPUNs+r.OffCPUNs < r.WallNs || r.Schedstat.CPUNs == 0 || r.Schedstat.CPUNs > r.CPUNs+50e6 {
			t.Errorf("wall %d, CPU %d, off CPU %d ns, schedstat %+v", r.WallNs, r.CPUNs, r.OffCPUNs, r.Schedstat)
		}
		if r.WakeLatency != nil || r.MigrationList != nil || r.CPUsUsed != "" || r.MaxGapNs != 0 {
			t.Errorf("what nobody saw: %+v", r)
		}
	}
}

// TestProgramsHavePhases compares the slices of programs with what they did in each
// phase: one is busy in the middle one, one ends there, one only starts (S10).
func TestProgramsHavePhases(t *testing.T) {
	busy, short, idle := programGroup(1, "out=up", "sleep=300ms", "busy=1h"), programGroup(1, "out=up", "sleep=600ms"), programGroup(1, "out=up", "sleep=1h")
	h, err := Spawn(Workload{Groups: []spec.Group{busy, short, idle}, Phases: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.Start()
	waitRunning(t, h)
	program := func(i int) *program { return h.procs[h.members[i].proc].program }
	up := func(i int) bool { return program(i).stdout.output().Bytes > 0 }
	// Under emulation their own start takes the CPU longer than what is looked for.
	await(t, "the programs' start", func() bool { return up(0) && up(1) && up(2) })
	h.SetPhase(1)
	onCPU := func() uint64 { return program(0).soFar(h.WorkerPIDs()[0]).cpuNs }
	before := onCPU()
	await(t, "the busy program", func() bool { return onCPU() > before+150e6 })
	await(t, "the short one's end", func() bool { h.Look(); return !h.Alive()[1] })
	if !h.InPhase() {
		t.Error("programs are behind a phase that nobody but the spawner could tell them of")
	}
	h.SetPhase(BetweenPhases)
	for i, r := range collect(t, h) {
		checkProgramPhases(t, i, &r)
	}
}

func checkProgramPhases(t *testing.T, i int, r *report.Worker) {
	t.Helper()
	if len(r.Phases) != 3 {
		t.Fatalf("program %d has %d slices, want 3: %+v", i, len(r.Phases), r)
	}
	var sum report.PhaseSlice
	for k, want := range []uint32{0, 1, BetweenPhases} {
		p := &r.Phases[k]
		if p.Epoch != want || p.WorkUnits != uint64(1-min(k, 1)) || p.CPUsUsed != "" {
			t.Errorf("program %d: slice %d is %+v", i, k, p)
		}
		sum.WallNs, sum.CPUNs, sum.Migrations, sum.Schedstat.RunCount = sum.WallNs+p.WallNs, sum.CPUNs+p.CPUNs, sum.Migrations+p.Migrations, sum.Schedstat.RunCount+p.Schedstat.RunCount
	}
	if sum.WallNs != r.WallNs || sum.CPUNs != r.CPUNs || sum.Migrations != r.Migrations || sum.Schedstat.RunCount != r.Schedstat.RunCount {
		t.Errorf("program %d: the slices add up to %+v, the program has %+v", i, sum, r)
	}
	if cpu := r.Phases[1].CPUNs; (cpu > 100e6) != (i == 0) {
		t.Errorf("program %d was on a CPU for %d ns of phase 1", i, cpu)
	}
	if wall := r.Phases[2].WallNs; (wall > 0) != (i != 1) {
		t.Errorf("program %d was there for %d ns of phase 2", i, wall)
	}
}

// TestLongOutputs keeps the begin and the end of what is more than the limit, of
// programs that write faster than one reads.
func TestLongOutputs(t *testing.T) {
	g := programGroup(3, "flood=100000", "err=end")
	g.Work.Params["output_kib"] = uint64(1)
	reports, _ := runPrograms(t, time.Minute, g)
	for _, r := range reports {
		o := r.Stdout
		if !r.Completed || o.Bytes != 1300000 || len(o.Head) != 512 || len(o.Tail) != 512 || o.Omitted != 1300000-1024 {
			t.Fatalf("completed %v, %d bytes, head %d, tail %d, omitted %d", r.Completed, o.Bytes, len(o.Head), len(o.Tail), o.Omitted)
		}
		if !strings.HasPrefix(o.Head, "line 0000000\nline 0000001\n") || !strings.HasSuffix(o.Tail, "line 0099998\nline 0099999\n") || r.Stderr.Head != "end\n" {
			t.Errorf("head %.30q, tail %.30q, stderr %q", o.Head, o.Tail[len(o.Tail)-30:], r.Stderr.Head)
		}
	}
}

// TestCapture puts bytes of all sizes through the ring.
func TestCapture(t *testing.T) {
	text := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 40)
	for _, limit := range []int{2, 10, 1000, 4000} {
		for _, piece := range []int{1, 3, 7, 64, len(text)} {
			c := &capture{half: limit / 2}
			for rest := text; rest != ""; {
				n := min(piece, len(rest))
				c.add([]byte(rest[:n]))
				rest = rest[n:]
			}
			o := c.output()
			if limit > len(text) {
				if o.Head != text || o.Tail != "" || o.Omitted != 0 {
					t.Errorf("limit %d, pieces of %d: %d bytes of head, %d omitted", limit, piece, len(o.Head), o.Omitted)
				}
			} else if o.Head != text[:limit/2] || o.Tail != text[len(text)-limit/2:] || int(o.Omitted) != len(text)-limit {
				t.Errorf("limit %d, pieces of %d: %+v", limit, piece, o)
			}
		}
	}
	c := &capture{half: 10}
	c.add([]byte("a\xffb"))
	if o := c.output(); o.Head != "a\uFFFDb" || o.Bytes != 3 {
		t.Errorf("bytes that are no UTF-8: %+v", o)
	}
}

// TestProgramsLeaveNothing kills what programs start: in their process group with
// them, and in sessions of their own with the cgroup that they were born in.
func TestProgramsLeaveNothing(t *testing.T) {
	for _, what := range []string{"child", "session"} {
		t.Run(what, func(t *testing.T) {
			if what == "session" {
				needCgroups(t)
			}
			reports, h := runPrograms(t, time.Minute, programGroup(1, what))
			pid, err := strconv.Atoi(strings.TrimSpace(reports[0].Stdout.Head))
			if err != nil || !reports[0].Completed {
				t.Fatalf("the program says %+v, %+v", reports[0].Stdout, reports[0].ExitInfo)
			}
			for range 100 {
				if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); len(state) == 0 || bytes.Contains(state, []byte(") Z ")) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); len(state) > 0 && !bytes.Contains(state, []byte(") Z ")) {
				t.Errorf("pid %d lives: %s", pid, state)
			}
			if notes := h.Notes(); len(notes) > 0 {
				t.Errorf("notes %q", notes)
			}
		})
	}
}

// TestProgramsThatCannotRun are refused before anything exists where that can be
// known, and say why where not.
func TestProgramsThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for want, params := range map[string][]any{
		"work.argv[0]: there is no program /nowhere/to/be/found": {"argv", "/nowhere/to/be/found"},
		`work.argv[0]: there is no program "gi-nothing" in /`:    {"argv", "gi-nothing"},
		"is no file that can be executed":                        {"argv", file("plain", "text", 0o644)},
		"work.argv[0]: " + dir + " is no file":                   {"argv", dir},
		"work.cwd: stat /nowhere":                                {"argv", file("script", "#!/bin/sh\n", 0o755), "cwd", "/nowhere"},
		"work.cwd: /proc/version is no directory":                {"argv", filepath.Join(dir, "script"), "cwd", "/proc/version"},
		"work.argv: is missing":                                  nil,
		"work.argv[0]: \"bin/x\" is neither":                     {"argv", "bin/x"},
		"work.cwd: \"tmp\" is no absolute path":                  {"argv", "sh", "cwd", "tmp"},
		"work.argv[1]: 5 is no text, quote it":                   {"argv", []any{"sleep", int64(5)}},
		"work.env: \"a=b\" is no name":                           {"argv", "sh", "env", map[string]any{"a=b": "c"}},
	} {
		h, err := Spawn(Workload{Groups: []spec.Group{group(1, "exec", params...)}})
		if err == nil {
			h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "groups[0]."+want) && !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
	many := group(maxWorkers, "exec", "argv", "sh")
	if w := (Workload{Groups: []spec.Group{many}}); w.Validate() == nil || !strings.Contains(w.Validate().Error(), "work.output_kib: 64 KiB") {
		t.Errorf("%d programs: %v", maxWorkers, w.Validate())
	}
	reports, _ := runPrograms(t, time.Minute,
		group(1, "exec", "argv", file("interpreter", "#!/nowhere/sh\n", 0o755)),
		group(1, "exec", "argv", file("format", "\x00\x01nothing", 0o755)))
	for i, want := range []string{"interpreter of a script", "neither a program for this machine"} {
		r := &reports[i]
		if e := r.ExitInfo; r.Completed || e == nil || e.Kind != report.ExitExited || e.Code != worker.ExitExec || !strings.Contains(e.Text, want) {
			t.Errorf("completed %v, %+v, want %q", r.Completed, e, want)
		}
		if r.WorkUnits != 0 || r.Iterations != 0 {
			t.Errorf("it did %d units of work", r.WorkUnits)
		}
	}
}

// TestProgramsAreKilled closes a handle whose programs nobody collected, one of
// which does not heed SIGTERM.
func TestProgramsAreKilled(t *testing.T) {
	h, err := Spawn(Workload{Groups: []spec.Group{programGroup(2, "ignore", "child", "sleep=1h")}})
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	wantNothingLeft(t)
}
