package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// What the loops of registered types are made of. All of it may be called outside
// the Go runtime, and nothing of what else Go offers. Times are nanoseconds of
// CLOCK_MONOTONIC.

// Now is the time, through the vDSO.
func Now() int64 { return bare.Now() }

// Spin does n units of work: n pauses of the CPU.
func (s *Slab) Spin(n uint64) { s.spin(n) }

// Work is Spin in pieces, with a look at the stop word and the clock between them;
// 0 is one unit, the pass itself.
func (s *Slab) Work(n uint64) { s.work(n) }

// Pass ends one pass of the loop. Loops call it once each time around: it counts
// Iterations and looks at clock and CPU for gaps and migrations.
func (s *Slab) Pass() { s.pass() }

// Blocks comes before a call that may block, and returns the time. The time until
// Woken or Rested is no gap.
func (s *Slab) Blocks() (start int64) { return s.blocks() }

// Woken records the time since start as a wake latency.
func (s *Slab) Woken(start int64) { s.woke(start, bare.Now()) }

// Rested comes after a call that blocked and is no wake-up to record.
func (s *Slab) Rested() { s.rested() }

// Costed records the time since start as an iteration cost.
func (s *Slab) Costed(start int64) { s.costed(start, bare.Now()) }

// Fired records the time since a deadline as a timer latency.
func (s *Slab) Fired(deadline int64) { record(s.Timer, s.Reservoir, bare.Now()-deadline) }

// Yield gives up the CPU and records how long it was away as a wake latency.
func (s *Slab) Yield() { s.yield() }

// SleepUntil sleeps until a deadline, with a look at the stop word every 100 ms.
// It returns whether it slept until then.
func (s *Slab) SleepUntil(deadline int64) bool { return s.sleepUntil(deadline) }

// Word is a 32-bit word of the memory that the set shares, with SharedMemory; the
// offset is a multiple of 4 within Region bytes. Use sync/atomic on it.
func (s *Slab) Word(offset uintptr) *uint32 { return s.word(offset) }

// AwaitChange waits on a futex until a shared word is no longer was. It returns
// false when the worker is to stop.
func (s *Slab) AwaitChange(word *uint32, was uint32) bool { return s.awaitChange(word, was) }

// WakeWaiters wakes at most n workers that wait for a shared word.
func WakeWaiters(word *uint32, n int32) { bare.FutexWake(word, n) }

// Exchange writes a byte to the partner and waits for the partner's, with
// PipePair; the wait is a wake latency. It returns false when the partner is gone.
func (s *Slab) Exchange() bool { return s.exchange() }

// RandomBelow is a random number below n, from 1 to 2³².
func (s *Slab) RandomBelow(n uint64) uint64 { return s.randomBelow(n) }

// SoftError keeps the first error of a call that failed and does not stop the
// worker, for the report; 0 is none.
func (s *Slab) SoftError(errno unix.Errno) { s.soft(errno) }

// Syscall makes a system call with up to six arguments and returns its result and
// errno. A call that blocks must end within 100 ms.
func Syscall(nr, a1, a2, a3, a4, a5, a6 uintptr) (uintptr, unix.Errno) {
	r := bare.Syscall6(nr, a1, a2, a3, a4, a5, a6)
	if errno := bare.Errno(r); errno != 0 {
		return 0, errno
	}
	return r, 0
}
