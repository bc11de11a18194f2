package spawn

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// thread is an OS thread that comes before the workers. It runs one function
// after the other, and none of them waits for the Go scheduler meanwhile.
type thread struct {
	calls    chan func()
	policy   string // what scheduling it got: "fifo:99", "nice:-20" or "nice:N"
	baseNice int    // nice of the process, which workers inherit
	slackNs  uint64 // timer slack of the process, which workers inherit
}

func newThread() *thread {
	t := &thread{calls: make(chan func())}
	started := make(chan struct{})
	go t.loop(started)
	<-started
	return t
}

func (t *thread) loop(started chan<- struct{}) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the loop
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil {
		t.slackNs = uint64(slack)
	}
	t.baseNice, t.policy = raisePriority()
	close(started)
	for f := range t.calls {
		f()
	}
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func()) {
	done := make(chan struct{})
	t.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// theCloner starts the cloner on first use: the one thread that makes all clones
// and lives as long as the process. The kernel kills workers when the thread that
// cloned them ends.
var theCloner = sync.OnceValue(func() *thread {
	bare.Prepare()
	return newThread()
})

// keepers are threads that no handle uses. A handle has one to itself, so that
// handles wait for their own workers alone.
var keepers = struct {
	sync.Mutex
	idle []*thread
}{}

// maxIdle is how many threads wait for the next handle. Others end.
const maxIdle = 2

// takeKeeper is a thread for a handle.
func takeKeeper() *thread {
	keepers.Lock()
	defer keepers.Unlock()
	if n := len(keepers.idle); n > 0 {
		t := keepers.idle[n-1]
		keepers.idle = keepers.idle[:n-1]
		return t
	}
	return newThread()
}

// giveBack takes a handle's thread back.
func (t *thread) giveBack() {
	keepers.Lock()
	defer keepers.Unlock()
	if len(keepers.idle) < maxIdle {
		keepers.idle = append(keepers.idle, t)
		return
	}
	close(t.calls)
}

// dlPeriod is the period of what outrank reserves, dlRuntimes how much of it:
// half of one CPU, or less where other handles have reserved already.
const dlPeriod = 100 * time.Millisecond

var dlRuntimes = [...]time.Duration{50 * time.Millisecond, 20 * time.Millisecond, 5 * time.Millisecond}

// outrank puts the calling thread, which is t, before workers of real-time
// priority 99 too: they would never give up the CPU to an equal. Only
// SCHED_DEADLINE comes before them. It returns what scheduling the thread has.
func (t *thread) outrank() string {
	if t.policy != fifo99 {
		return t.policy
	}
	for _, runtime := range dlRuntimes {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
			Runtime: uint64(runtime), Deadline: uint64(dlPeriod), Period: uint64(dlPeriod)}
		if unix.SchedSetAttr(0, &attr, 0) == nil {
			return fmt.Sprintf("deadline:%v/%v", runtime, dlPeriod)
		}
	}
	return t.policy
}

// settle ends what outrank began.
func (t *thread) settle() {
	if t.policy == fifo99 {
		setFIFO99()
	}
}

const fifo99 = "fifo:99"

func setFIFO99() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	return unix.SchedSetAttr(0, &attr, 0)
}

// raisePriority puts the calling thread before the workers it must stop:
// SCHED_FIFO 99 where it may, else nice −20, else what it has. Children do not
// inherit either.
func raisePriority() (baseNice int, policy string) {
	// The raw system call returns 20 − nice.
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		baseNice = 20 - raw
	}
	if setFIFO99() == nil {
		return baseNice, fifo99
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: -20, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if unix.SchedSetAttr(0, &attr, 0) == nil {
		return baseNice, "nice:-20"
	}
	return baseNice, fmt.Sprintf("nice:%d", baseNice)
}
