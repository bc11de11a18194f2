package worker

import (
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"

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
	if s.Params[1] == wakeByFutex {
		s.futexChain()
		return
	}
	s.pipeChain()
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
	}
	s.busyFor(int64(s.Params[2]), smallSpin)
}

// awaitByte reads one byte from the predecessor. It returns false when that is
// gone, and true without a byte when the worker is to stop.
func (s *Slab) awaitByte() bool {
	for !s.Stopped() {
		ready, errno := bare.PollIn(int(s.ReadFD), pollNs)
		if errno != 0 && errno != unix.EINTR {
			return false
		}
		if ready {
			n, ok := readByte(int(s.ReadFD))
			return ok && n == 1
		}
	}
	return true
}
