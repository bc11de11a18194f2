package worker

import (
	"structs"
	"sync/atomic"
	"unsafe"

	"github.com/guestinit/guestinit/internal/bare"
)

// PhaseSamples is how many samples a phase keeps of each latency.
const PhaseSamples = 8192

// Phase is what a worker measured while the phase epoch had one value. A latency
// record with its samples follows it for each population that the type promises:
// wake, then timer.
type Phase struct {
	_           structs.HostLayout
	Epoch       uint32
	MaxGapCPU   int32
	StartNs     int64
	EndNs       int64
	CPUNs       int64
	WorkUnits   uint64
	Iterations  uint64
	Migrations  uint64
	MaxGapNs    int64
	RunCPUNs    uint64
	RunDelayNs  uint64
	RunCount    uint64
	Migrated    uint64
	Wake, Timer uintptr // *bare.Latency, 0 where the type promises none
	CPUsUsed    CPUMask
	NUMAPages   [bare.MaxNodes]uint64
}

// PhaseSize is the size of a Phase in bytes, without its latency records.
const PhaseSize = unsafe.Sizeof(Phase{})

// PhaseAt is phase i of the worker.
func (s *Slab) PhaseAt(i uint32) *Phase {
	return (*Phase)(bare.Pointer(s.Phases + uintptr(i)*s.PhaseStride))
}

// seePhase looks whether the phase epoch has changed, and closes the books of the
// phase that ended. Slices beyond the room for them are lost; the last slice
// then holds all the rest.
func (s *Slab) seePhase() {
	epoch := atomic.LoadUint32(&SharedAt(s.Shared).Epoch)
	if epoch == s.PhaseAt(s.PhaseCount).Epoch || s.PhaseCount+1 >= s.PhaseRoom {
		return
	}
	now := bare.Now()
	s.checkpoint(now)
	s.endPhase(now)
	s.PhaseCount++
	s.beginPhase(epoch, now)
}

// beginPhase opens the current slice: what only counts up stands there negated,
// until endPhase adds where it came to.
func (s *Slab) beginPhase(epoch uint32, now int64) {
	p := s.PhaseAt(s.PhaseCount)
	p.Epoch, p.StartNs = epoch, now
	p.CPUNs = -bare.ThreadCPU()
	p.WorkUnits, p.Iterations, p.Migrations = -s.WorkUnits, -s.Iterations, -s.Migrations
	if bare.ReadSchedstat(&p.RunCPUNs, &p.RunDelayNs, &p.RunCount) == 0 {
		p.RunCPUNs, p.RunDelayNs, p.RunCount = -p.RunCPUNs, -p.RunDelayNs, -p.RunCount
	}
	if s.HasMigrated != 0 {
		pages, _ := bare.ReadPagesMigrated()
		p.Migrated = -pages
	}
	if uint32(s.CPU) < MaxCPUs {
		p.CPUsUsed[s.CPU/64] |= 1 << (uint(s.CPU) % 64)
	}
	if l := LatencyAt(s.Wake); l != nil {
		l.Phase, l.PhaseSamples = p.Wake, PhaseSamples
	}
	if l := LatencyAt(s.Timer); l != nil {
		l.Phase, l.PhaseSamples = p.Timer, PhaseSamples
	}
}

// endPhase closes the current slice.
func (s *Slab) endPhase(now int64) {
	p := s.PhaseAt(s.PhaseCount)
	p.CPUNs += bare.ThreadCPU()
	p.WorkUnits, p.Iterations, p.Migrations = p.WorkUnits+s.WorkUnits, p.Iterations+s.Iterations, p.Migrations+s.Migrations
	var cpu, delay, count uint64
	if bare.ReadSchedstat(&cpu, &delay, &count) == 0 {
		p.RunCPUNs, p.RunDelayNs, p.RunCount = p.RunCPUNs+cpu, p.RunDelayNs+delay, p.RunCount+count
	}
	if s.HasMigrated != 0 {
		pages, _ := bare.ReadPagesMigrated()
		p.Migrated += pages
	}
	bare.ReadNumaPages(&p.NUMAPages)
	p.EndNs = now
}
