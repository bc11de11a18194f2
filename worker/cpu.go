package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// spinUnits is the pauses of one pass of a type that only burns CPU.
const spinUnits = 1024

func spinWait(s *Slab) {
	for !s.Stopped() {
		s.spin(spinUnits)
		s.pass()
	}
}

func yieldHeavy(s *Slab) {
	for !s.Stopped() {
		s.WorkUnits++
		bare.Yield()
		s.pass()
	}
}

func bursty(s *Slab) {
	burst, sleep := int64(s.Params[0]), int64(s.Params[1])
	for !s.Stopped() {
		now := bare.Now()
		for end := now + burst; now < end && !s.Stopped(); now = bare.Now() {
			s.spin(spinUnits)
			s.look(bare.Now())
		}
		if s.Stopped() {
			break
		}
		s.sleepFor(sleep)
		s.pass()
	}
}

func timerLatency(s *Slab) {
	interval, skip := int64(s.Params[0]), s.Params[1] != 0
	deadline := bare.Now() + interval
	for !s.Stopped() {
		slept := s.sleepUntil(deadline)
		now := bare.Now()
		if slept {
			record(s.Timer, s.Reservoir, now-deadline)
			s.WorkUnits++
		}
		deadline = nextDeadline(deadline, interval, now, skip)
		s.gapFrom = now
		s.pass()
	}
}

// nextDeadline is one interval after deadline or, with skip, as many as it takes
// not to lie before now.
func nextDeadline(deadline, interval, now int64, skip bool) int64 {
	deadline += interval
	if late := now - deadline; skip && late > 0 {
		deadline += (late + interval - 1) / interval * interval
	}
	return deadline
}

// sleepUntil sleeps until the clock reaches deadline, looking at the stop word
// every 100 ms. It returns whether it slept until then.
func (s *Slab) sleepUntil(deadline int64) bool {
	s.blocks()
	for !s.Stopped() {
		until, whole := bare.Now()+pollNs, false
		if until >= deadline {
			until, whole = deadline, true
		}
		errno := bare.SleepUntil(until)
		s.lookAtPhase()
		switch {
		case errno == 0 && whole:
			return true
		case errno != 0 && errno != unix.EINTR:
			return false
		}
	}
	return false
}

// sleepFor sleeps for a time and records how long it took as a wake latency, unless
// the worker is to stop before.
func (s *Slab) sleepFor(ns int64) {
	start := s.blocks()
	if s.sleepUntil(start + ns) {
		s.woke(start, bare.Now())
	} else {
		s.rested()
	}
}

func mixed(s *Slab) {
	for !s.Stopped() {
		s.spin(spinUnits)
		bare.Yield()
		s.pass()
	}
}

// idleChurn records how much later than asked each sleep ended: the cost of
// leaving idle, and the timer slack unless precise_timing takes it away.
func idleChurn(s *Slab) {
	burst, sleep := int64(s.Params[0]), int64(s.Params[1])
	if s.Params[2] != 0 {
		s.soft(bare.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0))
	}
	for !s.Stopped() {
		s.busyFor(burst, smallSpin)
		deadline := bare.Now() + sleep
		slept := s.sleepUntil(deadline)
		now := bare.Now()
		if slept {
			record(s.Wake, s.Reservoir, now-deadline)
		}
		s.gapFrom = now
		s.pass()
	}
}

// smtSiblingSpin is spin_wait that also times its passes: a busy sibling thread
// of the core shows in them.
func smtSiblingSpin(s *Slab) {
	for !s.Stopped() {
		start := bare.Now()
		s.spin(spinUnits)
		s.costed(start, bare.Now())
		s.pass()
	}
}
