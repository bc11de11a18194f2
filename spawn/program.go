package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// DefaultPath is where the programs of exec are looked for if this process has no
// PATH, as PID 1 of a guest has none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxKept bounds what is kept of the outputs of one group's programs, in bytes.
const maxKept = 256 << 20

// program is what the spawner keeps of one exec worker.
type program struct {
	slab           *worker.Slab
	stop           unix.Signal
	grace          time.Duration
	stdout, stderr *capture
	overdue        bool // it did not end within its grace

	mu    sync.Mutex // between the keeper, which reaps, and who tells of phases
	ended bool       // the kernel was asked what it did
	cuts  []total    // at the begin of each phase after the first
}

// checkProgram bounds what the outputs of a group's programs may take.
func checkProgram(p *groupPlan, workers int) error {
	if p.work.Type.Resource != worker.ExecProgram {
		return nil
	}
	kib := p.work.Values[worker.ExecOutputKiB]
	if most := uint64(maxKept) / 2048 / uint64(max(workers, 1)); kib > most {
		return spec.At("work.output_kib", fmt.Errorf("%d KiB of each output of %d workers are more than %d MiB together; use at most %d, or fewer workers",
			kib, workers, maxKept>>20, most))
	}
	return nil
}

// makePrograms makes all workers of a group ready to become their program.
func (a *arena) makePrograms(p *groupPlan, slabs []*worker.Slab) error {
	argv := p.work.Lists[worker.ExecArgv]
	name, err := findProgram(argv[0], searchPath())
	if err != nil {
		return spec.At("work.argv[0]", err)
	}
	dir := p.work.Texts[worker.ExecCwd]
	if info, err := os.Stat(dir); err != nil {
		return spec.At("work.cwd", err)
	} else if !info.IsDir() {
		return spec.At("work.cwd", fmt.Errorf("%s is no directory", dir))
	}
	if p.group.Comm != "" {
		if name, err = a.alias(name, p.group.Comm); err != nil {
			return spec.At("comm", err)
		}
	}
	image, err := a.packProgram(name, dir, argv, environment(p.work.Lists[worker.ExecEnv]))
	if err != nil {
		return err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	if null, err = a.keepHigh(null); err != nil {
		return err
	}
	for _, s := range slabs {
		s.Program = image
		give(s, 0, null)
		run := &program{slab: s, stop: worker.StopSignal(p.work.Values[worker.ExecStopSignal]), grace: time.Duration(p.work.Values[worker.ExecGrace])}
		limit := int(p.work.Values[worker.ExecOutputKiB]) << 10
		a.programs = append(a.programs, run)
		if run.stdout, err = a.captureOf(s, 1, limit); err != nil {
			return err
		}
		if run.stderr, err = a.captureOf(s, 2, limit); err != nil {
			return err
		}
	}
	return nil
}

// captureOf makes a pipe, whose writing end is the worker's under an index.
func (a *arena) captureOf(s *worker.Slab, index, limit int) (*capture, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe for an output (see `ulimit -n`): %w", err)
	}
	c, err := newCapture(p[0], limit)
	if err != nil {
		unix.Close(p[1])
		return nil, err
	}
	fd, err := a.keepHigh(p[1])
	if err != nil {
		c.end(0)
		return nil, err
	}
	give(s, index, fd)
	return c, nil
}

// keepHigh is keep for a descriptor that must not be one of the first three,
// which a program's input and outputs become.
func (a *arena) keepHigh(fd int) (int, error) {
	if fd > 2 {
		return a.keep(fd), nil
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	unix.Close(fd)
	if err != nil {
		return -1, fmt.Errorf("copy descriptor: %w", err)
	}
	return a.keep(high), nil
}

// searchPath is where the programs of exec are looked for.
func searchPath() string {
	if p := os.Getenv("PATH"); p != "" {
		return p
	}
	return DefaultPath
}

// findProgram is the path of a program that can be executed.
func findProgram(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); filepath.IsAbs(file) && executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is no program %q in %s%s", name, path, whereFrom())
}

func executable(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no program %s%s", name, whereFrom())
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is no file that can be executed", name)
	}
	return nil
}

// whereFrom is the remedy for a program that is missing in a guest.
func whereFrom() string {
	if os.Getpid() == 1 {
		return " of the image; add it with --file PROGRAM"
	}
	return ""
}

// environment is what programs find in theirs: the same on a host and in a
// guest, but for PATH.
func environment(own []string) []string {
	env := []string{"PATH=" + searchPath(), "HOME=/"}
	for _, name := range []string{"GUESTINIT_PID1"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for _, v := range own {
		name, _, _ := strings.Cut(v, "=")
		i := 0
		for i < len(env) && !strings.HasPrefix(env[i], name+"=") {
			i++
		}
		if i < len(env) {
			env[i] = v
		} else {
			env = append(env, v)
		}
	}
	return env
}

// alias gives a program another name, in a directory of its own: the kernel takes
// the name of a task from the path that it executes.
func (a *arena) alias(program, comm string) (string, error) {
	if strings.Contains(comm, "/") || comm == "." || comm == ".." {
		return "", fmt.Errorf("%q cannot be the name of a program; take one that can be a file's", comm)
	}
	dir, err := os.MkdirTemp("", "guestinit-exec-")
	if err != nil {
		return "", err
	}
	a.dirs = append(a.dirs, dir)
	if err := os.Chmod(dir, 0o711); err != nil { // for programs of other users
		return "", err
	}
	name := filepath.Join(dir, comm)
	return name, os.Symlink(program, name)
}

// signal tells the program and what is in its process group to stop.
func (p *process) stopProgram() {
	if !p.reaped.Load() {
		unix.Kill(-p.pid, p.program.stop)
	}
}

// endPrograms kills programs that did not end within their grace since begin.
// Other workers are collected meanwhile.
func (h *Handle) endPrograms(begin time.Time) {
	for {
		next := time.Duration(-1)
		for _, p := range h.procs {
			if p.program != nil && !p.reaped.Load() && !p.program.overdue && (next < 0 || p.program.grace < next) {
				next = p.program.grace
			}
		}
		if next < 0 || h.reapAll(until(begin.Add(next))) {
			return
		}
		for _, p := range h.procs {
			if p.program != nil && !p.reaped.Load() && p.program.grace <= next {
				p.program.overdue = true
				p.kill()
			}
		}
	}
}

// measure reads what the kernel tells of a program that has ended and is not
// reaped yet. That is of its first thread; its CPU time comes with its status.
func (r *program) measure(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slab
	if r.ended || state(s) != worker.StateRunning || s.ExecErrno != 0 {
		return
	}
	r.ended = true
	s.EndNs = monotonic()
	run := schedstat(pid)
	for i, to := range []*uint64{&s.RunCPUNs, &s.RunDelayNs, &s.RunCount} {
		*to = run[i] - min(run[i], *to)
	}
	n := migrations(pid)
	s.Migrations = n - min(n, s.Migrations)
}

func readLine(pid int, file string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return ""
	}
	return string(b)
}

// judge commits the report of a program that ended as it should: by itself with
// status 0, or after the request to stop with status 0, by the signal that asked
// for it, or with the status that shells make of that signal.
func (r *program) judge(e *exitStatus, stopped bool) {
	if !r.ended {
		return
	}
	r.slab.CPUNs = e.cpuNs - r.slab.CPUNs
	byStop := e.value == int(r.stop) && e.killed || e.value == 128+int(r.stop) && !e.killed
	if !r.overdue && (!e.killed && e.value == 0 || stopped && byStop) {
		atomic.StoreUint32(&r.slab.State, worker.StateCommitted)
	}
}

// explain says how a program ended that did not end as it should.
func (r *program) explain(e *exitStatus, path string) *report.ExitInfo {
	switch errno := unix.Errno(r.slab.ExecErrno); {
	case errno != 0:
		return &report.ExitInfo{Kind: report.ExitExited, Code: worker.ExitExec, Text: fmt.Sprintf("execute %s: %v%s", path, errno, explainExec(errno))}
	case r.overdue:
		return &report.ExitInfo{Kind: report.ExitTimedOut, Signal: int(unix.SIGKILL),
			Text: fmt.Sprintf("%s did not end within %v of %s; killed", path, r.grace, unix.SignalName(r.stop))}
	case e.killed:
		return &report.ExitInfo{Kind: report.ExitSignaled, Signal: e.value, Text: path}
	}
	return &report.ExitInfo{Kind: report.ExitExited, Code: e.value, Text: path}
}

// explainExec says what the errno of a failed execve means here.
func explainExec(errno unix.Errno) string {
	switch errno {
	case unix.ENOENT:
		return " (the interpreter of a script, or the loader of a dynamically linked program, is missing)"
	case unix.ENOEXEC:
		return " (it is neither a program for this machine nor a script with a #! line)"
	case unix.EACCES:
		return " (its user may not execute it, or enter its directory)"
	}
	return ""
}

// finishPrograms ends what programs left behind in a cgroup of their own, and
// what reads their outputs.
func (h *Handle) finishPrograms() {
	for _, dir := range h.arena.programCgroups {
		_ = os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0) // Linux 5.14
	}
	deadline := time.Now().Add(drainTimeout)
	held := 0
	for _, r := range h.arena.programs {
		for _, c := range []*capture{r.stdout, r.stderr} {
			if !c.end(time.Until(deadline)) {
				held++
			}
		}
	}
	if held > 0 {
		h.arena.notes = append(h.arena.notes, fmt.Sprintf("exec: %d outputs were still open in processes that programs left behind in process groups of their own; what they write is lost", held))
	}
}

// outputs adds what the program of a worker wrote.
func (r *program) outputs(w *report.Worker) {
	w.Stdout, w.Stderr = r.stdout.output(), r.stderr.output()
}

// programOf is the program of a worker.
func (a *arena) programOf(s *worker.Slab) *program {
	for _, r := range a.programs {
		if r.slab == s {
			return r
		}
	}
	return nil
}
