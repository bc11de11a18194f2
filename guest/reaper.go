package guest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// While a zombie that somebody else is going to wait for hides the others, passes
// keep a distance, and the one after the last death is repeated once.
const (
	reapDistance = 50 * time.Millisecond
	reapRepeat   = time.Second
)

// maxReaps bounds the orphans reaped in one pass.
const maxReaps = 10_000

// reaper reaps orphans: children of PID 1 that nobody waits for. It never waits
// for a child that is owned, so it cannot steal an exit status.
//
// The kernel shows it one zombie at a time, the first of its list, and goes on
// showing the same one until it is reaped. As long as that is an orphan a pass
// costs a few system calls per orphan. Once it is an owned one, which stays
// until its owner has time, the pass asks for each child that is not owned by
// its pid. Later deaths bring a signal of their own. The pass is repeated once
// all the same, because the kernel's list of children is not reliable while
// children are reaped; so a zombie that nobody fetches costs nothing more.
type reaper struct {
	owned func(pid int) bool
	proc  string // the /proc of this process's pid namespace
	stop  chan struct{}
	done  chan struct{}
}

// startReaper starts to reap.
func startReaper(owned func(int) bool, proc string) *reaper {
	if owned == nil {
		owned = func(int) bool { return false }
	}
	r := &reaper{owned: owned, proc: proc, stop: make(chan struct{}), done: make(chan struct{})}
	// One signal that waits is enough: a pass looks at all children.
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, unix.SIGCHLD)
	go func() {
		defer close(r.done)
		defer signal.Stop(deaths)
		r.serve(deaths)
	}()
	return r
}

// Close stops reaping.
func (r *reaper) Close() {
	close(r.stop)
	<-r.done
}

func (r *reaper) serve(deaths <-chan os.Signal) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for repeated := false; ; {
		var again <-chan time.Time // nil: only a death wakes the reaper
		if r.pass() {
			// Deaths of the meantime wait in the channel as one: however
			// fast owned children die, there are few passes.
			timer.Reset(reapDistance)
			select {
			case <-timer.C:
			case <-r.stop:
				return
			}
			if !repeated {
				timer.Reset(reapRepeat)
				again = timer.C
			}
		}
		select {
		case <-deaths:
			repeated = false
		case <-again:
			repeated = true
		case <-r.stop:
			return
		}
	}
}

// pass reaps the orphans that are dead now. It returns true when an owned
// zombie kept it from knowing that it got all.
func (r *reaper) pass() (blocked bool) {
	for range maxReaps {
		pid := peekZombie()
		if pid == 0 {
			return false
		}
		if r.owned(pid) {
			r.passByPID()
			return true
		}
		reap(pid)
	}
	return true // the rest is for the next pass
}

// passByPID reaps the orphans among the children one by one.
func (r *reaper) passByPID() {
	pids, err := childrenOf(r.proc, os.Getpid())
	if err != nil {
		return // the next pass comes soon
	}
	for _, pid := range pids {
		// A worker that is being born is in the list before it is owned: owned
		// waits for the end of its clone.
		if !r.owned(pid) {
			reap(pid)
		}
	}
}

// peekZombie returns the pid of a dead child without reaping it, or 0.
func peekZombie() int {
	var info unix.Siginfo
	if err := waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT); err != nil {
		return 0 // ECHILD: no children at all
	}
	return siginfoPID(&info)
}

// reap waits for one child if it is dead.
func reap(pid int) {
	// An error means that it is no child any more.
	_ = waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG)
}

// waitid is waitid(2), again after EINTR.
func waitid(idType, id int, info *unix.Siginfo, options int) error {
	for {
		err := unix.Waitid(idType, id, info, options, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// siginfoPID returns si_pid, which follows the head of a siginfo_t. x/sys has
// no name for it, and reading it through reflection spares an unsafe pointer.
func siginfoPID(info *unix.Siginfo) int {
	v := reflect.ValueOf(info).Elem()
	union := v.Field(v.NumField() - 1)
	var pid uint32
	for i := range 4 {
		pid |= uint32(union.Index(i).Uint()) << (8 * i) // amd64 and arm64 are little endian
	}
	return int(int32(pid))
}

// childrenOf lists the children of a process: from its threads' children files,
// or from every process's parent where the kernel lacks those files
// (CONFIG_PROC_CHILDREN).
func childrenOf(proc string, pid int) ([]int, error) {
	files, err := filepath.Glob(filepath.Join(proc, strconv.Itoa(pid), "task", "*", "children"))
	if err != nil {
		return nil, fmt.Errorf("list children of %d: %w", pid, err)
	}
	if len(files) == 0 {
		return childrenByParent(proc, pid)
	}
	var pids []int
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has gone
		}
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids, nil
}

// childrenByParent finds the children of a process by their parent.
func childrenByParent(proc string, pid int) ([]int, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, fmt.Errorf("list children of %d: %w", pid, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list children of %d: %w", pid, err)
	}
	var pids []int
	for _, name := range names {
		child, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(proc, name, "stat"))
		if err == nil && statParent(string(text)) == pid {
			pids = append(pids, child)
		}
	}
	return pids, nil
}

// statParent returns the parent's pid in a line of /proc/PID/stat, or 0. The
// command name in it may hold anything, parentheses too.
func statParent(stat string) int {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return ppid
}
