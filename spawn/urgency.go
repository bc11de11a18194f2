package spawn

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// urgency puts the threads that come before the workers before workers of
// real-time priority 99 too, while there may be any: they would never give up the
// CPU to an equal. Only SCHED_DEADLINE comes before them. It does so for all
// threads in use, those of other handles and the cloner among them, since those
// must go on for a workload to end.
type urgency struct {
	sync.Mutex
	rivals  int                  // handles that may have such workers, from their start until they are collected
	threads map[*thread]struct{} // in use
}

// theUrgency is the one of this process.
var theUrgency = sync.OnceValue(func() *urgency { return &urgency{threads: map[*thread]struct{}{}} })

// enlist takes a thread into use.
func (u *urgency) enlist(t *thread) {
	u.Lock()
	defer u.Unlock()
	u.threads[t] = struct{}{}
	t.was.Store(&t.policy)
	if u.rivals > 0 {
		t.outrank(dlRuntimes[othersFrom:])
	}
}

// discharge ends the use of a thread.
func (u *urgency) discharge(t *thread) {
	u.Lock()
	defer u.Unlock()
	delete(u.threads, t)
}

// begin is called before the workers of a handle may come to be rivals. own is
// the thread that is to stop them.
func (u *urgency) begin(own *thread) {
	u.Lock()
	defer u.Unlock()
	u.rivals++
	own.outrank(dlRuntimes[:])
	for t := range u.threads {
		t.outrank(dlRuntimes[othersFrom:])
	}
}

// end is called when none of them is left.
func (u *urgency) end() {
	u.Lock()
	defer u.Unlock()
	u.rivals--
}

// settle gives the calling thread, which is t, its usual policy back if there is
// no rival any more, or nobody uses it. Each thread does that itself, between two
// of its calls: Linux 6.18 loses the reservation of a sleeping thread that another
// one takes out of SCHED_DEADLINE, until none can be had.
func (u *urgency) settle(t *thread) {
	u.Lock()
	defer u.Unlock()
	if _, used := u.threads[t]; t.outranks && (!used || u.rivals == 0) && setFIFO99() == nil {
		t.outranks = false
	}
}

// dlPeriod is the period of what outrank reserves, dlRuntimes how much of it: half
// of one CPU, or less where other threads have reserved already. Threads that only
// must go on while others stop their workers ask from othersFrom on.
const dlPeriod = 100 * time.Millisecond

var dlRuntimes = [...]time.Duration{50 * time.Millisecond, 20 * time.Millisecond, 5 * time.Millisecond, time.Millisecond}

const othersFrom = 2

// outrank gives the thread a reservation, the first of runtimes that the kernel
// grants.
func (t *thread) outrank(runtimes []time.Duration) {
	if t.policy != fifo99 || t.outranks {
		return
	}
	for _, runtime := range runtimes {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
			Runtime: uint64(runtime), Deadline: uint64(dlPeriod), Period: uint64(dlPeriod)}
		if unix.SchedSetAttr(t.tid, &attr, 0) == nil {
			policy := fmt.Sprintf("deadline:%v/%v", runtime, dlPeriod)
			t.was.Store(&policy)
			t.outranks = true
			return
		}
	}
}
