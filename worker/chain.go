package worker

import (
	"math"
	"sync/atomic"

	"github.com/guestinit/guestinit/internal/bare"
)

// How the stages of wake_chain wake each other, in the order of wakeMechanisms.
const (
	wakeByPipe = iota
	wakeByFutex
)

var wakeMechanisms = []string{"pipe", "futex"}

// UsesRing tells whether a wake_chain with these values goes over pipes.
func UsesRing(values *[MaxParams]uint64) bool { return values[1] == wakeByPipe }

// wakeChain hands a token around a ring of stages, each of which works a little
// before it wakes the next; wake latency is the wait for the token.
func wakeChain(s *Slab) {
	s.beginWaits()
	if s.Params[1] == wakeByFutex {
		s.futexChain()
	} else {
		s.pipeChain()
	}
	s.endWaits()
}

func (s *Slab) futexChain() {
	stage, depth := s.word(0), uint32(s.Params[0])
	for !s.Stopped() {
		start := s.blocks()
		for now := atomic.LoadUint32(stage); now != s.Pos; now = atomic.LoadUint32(stage) {
			if !s.awaitChange(stage, now) {
				return
			}
		}
		s.woke(start, bare.Now())
		s.hop()
		atomic.StoreUint32(stage, (s.Pos+1)%depth)
		bare.FutexWake(stage, math.MaxInt32)
		s.pass()
	}
}

func (s *Slab) pipeChain() {
	if s.Pos == 0 && !writeByte(int(s.WriteFD)) {
		return
	}
	for !s.Stopped() {
		start := s.blocks()
		if !s.awaitByte() || s.Stopped() {
			return
		}
		s.woke(start, bare.Now())
		s.hop()
		if !writeByte(int(s.WriteFD)) {
			return
		}
		s.pass()
	}
}

// hop is the work of one stage; no time for it is one unit.
func (s *Slab) hop() {
	if s.Params[2] == 0 {
		s.WorkUnits++
		return
	}
	s.busyFor(int64(s.Params[2]), smallSpin)
}
