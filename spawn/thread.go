package spawn

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

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
	tid      int
	outranks bool                   // it has a reservation; guarded by theUrgency
	was      atomic.Pointer[string] // the most urgent policy it has had for its user
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
	t.tid = unix.Gettid()
	t.baseNice, t.policy = raisePriority()
	close(started)
	for f := range t.calls {
		theUrgency().settle(t)
		f()
		theUrgency().settle(t)
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
	t := newThread()
	theUrgency().enlist(t)
	return t
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
	t := idleKeeper()
	if t == nil {
		t = newThread()
	}
	theUrgency().enlist(t)
	return t
}

// idleKeeper is one of those that no handle uses, or nil.
func idleKeeper() *thread {
	keepers.Lock()
	defer keepers.Unlock()
	n := len(keepers.idle)
	if n == 0 {
		return nil
	}
	t := keepers.idle[n-1]
	keepers.idle = keepers.idle[:n-1]
	return t
}

// giveBack takes a handle's thread back.
func (t *thread) giveBack() {
	theUrgency().discharge(t)
	keepers.Lock()
	defer keepers.Unlock()
	if len(keepers.idle) < maxIdle {
		keepers.idle = append(keepers.idle, t)
		return
	}
	close(t.calls)
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
