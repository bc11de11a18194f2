package worker

import (
	"structs"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

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
	PeerPages   uint32  // 1: the pages are those of the group's first worker
	PagesRead   uint32  // of the first worker: 1 once another began to read its process's pages here
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

// Mark is when a phase began, and its epoch. The spawner writes one for each turn
// before it counts the turn.
type Mark struct {
	_     structs.HostLayout
	AtNs  int64 // CLOCK_MONOTONIC
	Epoch uint32
	_     uint32
}

// MarkSize is the size of a Mark in bytes.
const MarkSize = unsafe.Sizeof(Mark{})

// MarkAt is the mark of a turn, below the number of slices there is room for.
func (h *Shared) MarkAt(turn uint32) *Mark {
	return (*Mark)(bare.Pointer(h.Marks + uintptr(turn)*MarkSize))
}

// lookAtPhase notices a change of phase, if the run has phases. It is called
// where work ends and in every wait, so that what follows counts for its phase.
func (s *Slab) lookAtPhase() {
	if s.PhaseRoom != 0 {
		s.seePhase()
	}
}

// seePhase closes the books of the phases that have ended, each at its own end,
// however late the worker comes to look: it has a slice of every phase, and one
// without work for a phase in which it did not run.
func (s *Slab) seePhase() {
	shared := SharedAt(s.Shared)
	turn := atomic.LoadUint32(&shared.Turn)
	if turn <= s.PhaseCount {
		return
	}
	now, cpu, was := bare.Now(), int32(bare.CPU()), s.CPU
	s.lastCheck, s.EndNs = s.WorkUnits, now
	if s.gap(now, cpu); s.gapFrom != blocked {
		s.gapFrom = now
	}
	end := max(shared.MarkAt(s.PhaseCount+1).AtNs, s.PhaseAt(s.PhaseCount).StartNs)
	s.endPhase(end)
	atomic.AddUint32(&s.PhaseCount, 1)
	// The CPU that it is on now is the new phase's: what happened between the phases
	// may have moved it there.
	s.CPU = cpu
	s.beginPhase(turn, end)
	if s.CPU = was; cpu != was {
		s.migrated(now, cpu)
	}
}

// skipPhases leaves slices without work of the phases from the current one to
// before turn, and returns the end of the last.
func (s *Slab) skipPhases(turn uint32, now int64) int64 {
	shared := SharedAt(s.Shared)
	for s.PhaseCount < turn {
		p := s.PhaseAt(s.PhaseCount)
		p.Epoch, p.StartNs = shared.MarkAt(s.PhaseCount).Epoch, now
		now = max(now, shared.MarkAt(s.PhaseCount+1).AtNs)
		p.EndNs = now
		atomic.AddUint32(&s.PhaseCount, 1)
	}
	return now
}

// beginPhase opens the slice of a turn, at a time: what only counts up stands
// there negated, until endPhase adds where it came to. It begins where the slice
// before ended, so that all slices together are the whole: what the books
// themselves take is in the slice that they open.
func (s *Slab) beginPhase(turn uint32, now int64) {
	now = s.skipPhases(turn, now)
	p := s.PhaseAt(turn)
	p.Epoch, p.StartNs = SharedAt(s.Shared).MarkAt(turn).Epoch, now
	p.WorkUnits, p.Iterations, p.Migrations = -s.WorkUnits, -s.Iterations, -s.Migrations
	p.CPUNs, p.Migrated = -s.Seen.CPUNs, -s.Seen.Migrated
	p.RunCPUNs, p.RunDelayNs, p.RunCount = -s.Seen.RunCPUNs, -s.Seen.RunDelayNs, -s.Seen.RunCount
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

// endPhase closes the current slice, at a time.
func (s *Slab) endPhase(now int64) {
	p := s.PhaseAt(s.PhaseCount)
	s.count()
	p.WorkUnits, p.Iterations, p.Migrations = p.WorkUnits+s.WorkUnits, p.Iterations+s.Iterations, p.Migrations+s.Migrations
	p.CPUNs, p.Migrated = p.CPUNs+s.Seen.CPUNs, p.Migrated+s.Seen.Migrated
	p.RunCPUNs, p.RunDelayNs, p.RunCount = p.RunCPUNs+s.Seen.RunCPUNs, p.RunDelayNs+s.Seen.RunDelayNs, p.RunCount+s.Seen.RunCount
	first := SlabAt(s.Peers).PhaseAt(s.PhaseCount)
	s.readPages(&p.NUMAPages, &p.PeerPages, &first.NUMAPages, &first.PagesRead)
	p.EndNs = now
}

// readPages reads the pages of the worker's process. Those of threads are all the
// same, and take the kernel the longer the more threads there are: the first of a
// group to come here reads them for all, into the slab of the group's first.
func (s *Slab) readPages(own *[bare.MaxNodes]uint64, peer *uint32, shared *[bare.MaxNodes]uint64, read *uint32) unix.Errno {
	if s.Mode == ModeProcess {
		return bare.ReadNumaPages(own)
	}
	*peer = 1
	if !atomic.CompareAndSwapUint32(read, 0, 1) {
		return 0
	}
	return bare.ReadNumaPages(shared)
}
