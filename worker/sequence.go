package worker

import (
	"github.com/guestinit/guestinit/internal/bare"
)

// The phases of sequence, in the order of phaseNames.
const (
	phaseSpin = iota
	phaseSleep
	phaseYield
	phaseIO
	phaseALU
)

var phaseNames = []string{"spin", "sleep", "yield", "io", "alu_hot"}

// MaxPhases is the most phases that sequence takes. Its parameter values are the
// width of vectors, the number of phases and then each.
const MaxPhases = 8

// A phase is one number: what it does above, for how many nanoseconds below.
const phaseShift = 56

func packPhase(what int, ns uint64) uint64 { return uint64(what)<<phaseShift | ns }

func unpackPhase(v uint64) (what int, ns uint64) {
	return int(v >> phaseShift), v & (1<<phaseShift - 1)
}

// PhasesUseFile tells whether a sequence with these values writes to a file.
func PhasesUseFile(values *[MaxParams]uint64) bool {
	for _, v := range values[2 : 2+min(values[1], MaxPhases)] {
		if what, _ := unpackPhase(v); what == phaseIO {
			return true
		}
	}
	return false
}

// sequence goes through its phases, a pass being all of them once.
func sequence(s *Slab) {
	for !s.Stopped() {
		for i := uint64(0); i < s.Params[1] && i < MaxPhases && !s.Stopped(); i++ {
			what, ns := unpackPhase(s.Params[2+i])
			s.phase(what, int64(ns))
		}
		s.pass()
	}
}

func (s *Slab) phase(what int, ns int64) {
	start := bare.Now()
	end := start + ns
	switch what {
	case phaseSpin:
		s.busyFor(ns, spinUnits)
	case phaseSleep:
		s.sleepFor(ns)
		s.WorkUnits++
	case phaseYield:
		for now := start; now < end && !s.Stopped(); now = bare.Now() {
			s.WorkUnits++
			s.yield()
			s.gapFrom = bare.Now()
		}
	case phaseIO:
		for now := start; now < end && !s.Stopped(); now = bare.Now() {
			s.rewriteFile()
		}
	case phaseALU:
		s.VectorBits = vectorBits(s.Params[0])
		for now := start; now < end && !s.Stopped(); now = bare.Now() {
			s.aluPass()
			s.look(now)
		}
	}
	s.checkpoint(bare.Now())
}
