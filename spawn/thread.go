package spawn

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// cloner is the one OS thread that makes all clones of this process, opens the
// gates, stops workers and collects them. It lives as long as the process.
type cloner struct {
	calls    chan func()
	policy   string // what scheduling it got: "fifo:99", "nice:-20" or "nice:N"
	baseNice int    // nice of the process, which workers inherit
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

// raisePriority puts the calling thread before the workers it must stop:
// SCHED_FIFO 99 where it may, else nice −20, else what it has. Children do not
// inherit either.
func raisePriority() (baseNice int, policy string) {
	// The raw system call returns 20 − nice.
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		baseNice = 20 - raw
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if unix.SchedSetAttr(0, &attr, 0) == nil {
		return baseNice, "fifo:99"
	}
	attr = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: -20, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if unix.SchedSetAttr(0, &attr, 0) == nil {
		return baseNice, "nice:-20"
	}
	return baseNice, fmt.Sprintf("nice:%d", baseNice)
}
