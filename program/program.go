package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options is what to run, and how.
type Options struct {
	Path   string   // of the program; it is not looked up in $PATH
	Args   []string // without the program's name
	Env    []string // KEY=VALUE, added to this process's own
	Cgroup *os.File // directory of the cgroup that the program is born in; nil: that of this process

	// What is kept of standard output and standard error together: so many
	// bytes of its beginning and of its end. 0 and 0 keep nothing.
	Head, Tail int
}

// killWait bounds the wait for a program's end after SIGKILL, and for its output
// when something else holds the pipe.
const killWait = 2 * time.Second

// children are the programs that run. Whoever starts one holds the lock, so that
// Owns never sees a pid that is not in the set yet.
var children = struct {
	sync.Mutex
	owned map[int]struct{}
}{}

// Owns tells whether pid is a program that this package will reap. A process
// that reaps orphans (PID 1) must leave such a pid alone.
func Owns(pid int) bool {
	children.Lock()
	defer children.Unlock()
	_, ok := children.owned[pid]
	return ok
}

// Program is one program that was started. Its methods are safe for concurrent
// use.
type Program struct {
	cmd  *exec.Cmd
	out  output
	done chan struct{}
	exit Exit
}

// Exit is how a program ended.
type Exit struct {
	Code   int // exit status; −1 if a signal ended it
	Signal int // 0 if it exited
	Err    error
}

// String says it in a few words: "exit status 3", "killed by SIGSEGV".
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != 0:
		if name := unix.SignalName(unix.Signal(e.Signal)); name != "" {
			return "killed by " + name
		}
		return fmt.Sprintf("killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Start starts a program. Its standard input is /dev/null.
func Start(o Options) (*Program, error) {
	p := &Program{cmd: exec.Command(o.Path, o.Args...), done: make(chan struct{})}
	p.cmd.Path = o.Path // as it is: no $PATH
	p.cmd.Err = nil
	p.out.head, p.out.tail = o.Head, o.Tail
	if len(o.Env) > 0 {
		p.cmd.Env = append(os.Environ(), o.Env...)
	}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.WaitDelay = &p.out, &p.out, killWait
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if o.Cgroup != nil {
		p.cmd.SysProcAttr.UseCgroupFD, p.cmd.SysProcAttr.CgroupFD = true, int(o.Cgroup.Fd())
	}
	started := make(chan error, 1)
	go p.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Path, cause(err))
	}
	return p, nil
}

// cause strips the path that the error of a start repeats.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// own starts the program and stays on its thread until the program is gone: the
// parent death signal is sent when the thread that forked ends, not the process.
func (p *Program) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.birth()
	started <- err
	if err != nil {
		return
	}
	err = p.cmd.Wait()
	children.Lock()
	delete(children.owned, p.cmd.Process.Pid)
	children.Unlock()
	p.exit = exitOf(p.cmd.ProcessState, err)
	close(p.done)
}

func (p *Program) birth() error {
	children.Lock()
	defer children.Unlock()
	if err := p.cmd.Start(); err != nil {
		return err
	}
	if children.owned == nil {
		children.owned = make(map[int]struct{})
	}
	children.owned[p.cmd.Process.Pid] = struct{}{}
	return nil
}

func exitOf(state *os.ProcessState, err error) Exit {
	if state == nil {
		return Exit{Code: -1, Err: fmt.Errorf("wait for it: %w", err)}
	}
	e := Exit{Code: state.ExitCode()}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Signal = int(status.Signal())
	}
	return e
}

// PID is the program's process id, and that of its process group.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended and its output is in.
func (p *Program) Done() <-chan struct{} { return p.done }

// Exit is how the program ended. It waits for the end.
func (p *Program) Exit() Exit {
	<-p.done
	return p.exit
}

// Output is what is kept of what the program wrote until now.
func (p *Program) Output() string { return p.out.text() }

// Signal sends a signal to the program's process group. A program that is gone
// is no error.
func (p *Program) Signal(s unix.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := unix.Kill(-p.PID(), s); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process group %d: %w", unix.SignalName(s), p.PID(), err)
	}
	return nil
}

// Stop asks the program to end, with the signal, gives it grace for that, and
// kills its process group then. It returns true if it had to kill. An error
// means that the program did not end at all.
func (p *Program) Stop(s unix.Signal, grace time.Duration) (killed bool, err error) {
	if err := p.Signal(s); err != nil {
		return false, err
	}
	if p.await(grace) {
		return false, nil
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return true, err
	}
	if !p.await(2 * killWait) {
		return true, fmt.Errorf("stop process %d: it does not end within %v of SIGKILL", p.PID(), 2*killWait)
	}
	return true, nil
}

// await waits for the end.
func (p *Program) await(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}
