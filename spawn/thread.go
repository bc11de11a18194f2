package spawn

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// cloner is the one OS thread that makes all clones of this process, opens the
// gates, stops workers and collects them. It lives as long as the process.
type cloner struct {
	calls    chan func()
	policy   string // what scheduling it got: "fifo:99", "nice:-20" or "nice:N"
	baseNice int    // nice of the process, which workers inherit
	slackNs  uint64 // timer slack of the process, which workers inherit
	outranks int    // handles whose workers need outrank
}

// theCloner starts the thread on first use; there is one per process because
// the kernel kills workers when the thread that cloned them ends.
var theCloner = sync.OnceValue(func() *cloner {
	c := &cloner{calls: make(chan func())}
	started := make(chan struct{})
	go c.loop(started)
	<-started
	return c
})

func (c *cloner) loop(started chan<- struct{}) {
	runtime.LockOSThread()
	bare.Prepare()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil {
		c.slackNs = uint64(slack)
	}
	c.baseNice, c.policy = raisePriority()
	close(started)
	for f := range c.calls {
		f()
	}
}

// do runs f on the thread and waits for it.
func (c *cloner) do(f func()) {
	done := make(chan struct{})
	c.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// dlRuntime and dlPeriod are what outrank reserves: half of one CPU.
const (
	dlRuntime = 50 * time.Millisecond
	dlPeriod  = 100 * time.Millisecond
)

// outrank puts the calling thread, which is the cloner's, before workers of real-
// time priority 99 too: they would never give up the CPU to an equal. Only
// SCHED_DEADLINE comes before them. It returns what scheduling the thread has.
func (c *cloner) outrank() string {
	if c.outranks++; c.outranks == 1 && c.policy == fifo99 {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
			Runtime: uint64(dlRuntime), Deadline: uint64(dlPeriod), Period: uint64(dlPeriod)}
		if unix.SchedSetAttr(0, &attr, 0) == nil {
			return fmt.Sprintf("deadline:%v/%v", dlRuntime, dlPeriod)
		}
	}
	return c.policy
}

// settle ends what outrank began.
func (c *cloner) settle() {
	if c.outranks--; c.outranks == 0 && c.policy == fifo99 {
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
