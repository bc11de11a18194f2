package worker

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// smallSpin is the pauses of a step that only paces a loop.
const smallSpin = 256

// work does n units in pieces, looking at the stop word and the clock between
// them, so that no parameter makes a worker deaf. Nothing to do is one unit of
// work: the pass itself.
func (s *Slab) work(n uint64) {
	if n == 0 {
		s.WorkUnits++
		return
	}
	for n > spinUnits && !s.Stopped() {
		s.spin(spinUnits)
		s.look(bare.Now())
		n -= spinUnits
	}
	if !s.Stopped() {
		s.spin(min(n, spinUnits))
	}
}

// busyFor spins in pieces of unit pauses for a time in nanoseconds.
func (s *Slab) busyFor(ns int64, unit uint64) {
	now := bare.Now()
	for end := now + ns; now < end && !s.Stopped(); {
		s.spin(unit)
		now = bare.Now()
		s.look(now)
	}
}

// look is what a long pass does now and then. Without, all of it would be one gap,
// and belong to the phase that it ends in.
func (s *Slab) look(now int64) {
	s.checkpoint(now)
	s.lookAtPhase()
}

// costed records what a pass cost that began at start.
func (s *Slab) costed(start, now int64) { record(s.Cost, s.Reservoir, now-start) }

// rested begins a new gap after a sleep that is no wake-up to record.
func (s *Slab) rested() { s.gapFrom = bare.Now() }

// yield gives up the CPU and records how long it was away.
func (s *Slab) yield() {
	start := bare.Now()
	bare.Yield()
	now := bare.Now()
	s.lookAtPhase()
	record(s.Wake, s.Reservoir, now-start)
}

// awaitChange waits until the word is no longer was. It returns false when the
// worker is to stop.
func (s *Slab) awaitChange(word *uint32, was uint32) bool {
	for atomic.LoadUint32(word) == was {
		if s.Stopped() {
			return false
		}
		s.await(word, was)
	}
	return !s.Stopped()
}

// await waits on a futex while the word is was, for pollNs or for a tick.
func (s *Slab) await(word *uint32, was uint32) {
	if s.ticks != 0 {
		bare.FutexAwait(word, was)
	} else {
		bare.FutexWait(word, was, pollNs)
	}
	s.lookAtPhase()
}

// beginWaits has a signal end every wait of a forked worker after pollNs, so that
// its calls need no timeout and read(2) no poll(2) before it: the tools that such
// types are compared with make none of these either, and they cost a sixth of an
// exchange. Threads cannot have a signal of their own, and go without.
func (s *Slab) beginWaits() {
	if s.Mode == ModeProcess && bare.Tick(pollNs) == 0 {
		s.ticks = 1
	}
}

// endWaits undoes beginWaits.
func (s *Slab) endWaits() {
	if s.ticks != 0 {
		bare.Tick(0)
		s.ticks = 0
	}
}

// restUntilStop sleeps until the worker is to stop.
func (s *Slab) restUntilStop() {
	for !s.Stopped() {
		s.sleepUntil(bare.Now() + pollNs)
		s.rested()
	}
}

// soft keeps the first errno of what the work type asked for itself.
func (s *Slab) soft(errno unix.Errno) {
	if errno != 0 && s.SoftErrno[StepWork] == 0 {
		s.SoftErrno[StepWork] = uint32(errno)
	}
}

// promote gives the worker a real-time priority for its role.
func (s *Slab) promote(priority int) {
	s.soft(bare.SetScheduler(0, unix.SCHED_FIFO, priority))
}

// random is the next number of the worker's own generator.
func (s *Slab) random() uint64 { return bare.XorShift(&s.rng, uint64(s.TID)) }

// randomBelow is a random number below n, which must be above 0 and is taken to
// be below 2³².
func (s *Slab) randomBelow(n uint64) uint64 { return s.random() >> 32 * n >> 32 }
