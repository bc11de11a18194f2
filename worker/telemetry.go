package worker

import (
	"sync/atomic"

	"github.com/guestinit/guestinit/internal/bare"
)

// pollNs is how long a worker blocks at most before it looks at its stop word.
const pollNs = 100e6

// A checkpoint comes after so much work, or after so many passes if they do
// little: types that do one unit between two system calls would else look stuck
// for as long as a thousand of them take.
const (
	checkpointUnits  = 1024
	checkpointPasses = 16
)

// spin does n units of work, a pause each.
func (s *Slab) spin(n uint64) {
	bare.Spin(n)
	s.WorkUnits += n
}

// pass ends one pass of the work loop.
func (s *Slab) pass() {
	s.Iterations++
	s.lookAtPhase()
	if s.WorkUnits-s.lastCheck >= checkpointUnits || s.Iterations%checkpointPasses == 0 {
		s.checkpoint(bare.Now())
	}
}

// checkpoint looks at the clock and the CPU: the gap since the last one, and
// whether the worker migrated.
func (s *Slab) checkpoint(now int64) {
	s.lastCheck = s.WorkUnits
	cpu := int32(bare.CPU())
	s.gap(now, cpu)
	s.gapFrom, s.EndNs = now, now
	if cpu != s.CPU {
		s.lookAtPhase() // what moved it may have been between the phases, since it looked
	}
	if cpu != s.CPU {
		s.migrated(now, cpu)
	}
}

// gap looks whether the time since the last checkpoint is the longest yet. A
// worker that is blocked has no gap.
func (s *Slab) gap(now int64, cpu int32) {
	gap := now - s.gapFrom
	if s.gapFrom == blocked {
		return
	}
	if gap > s.MaxGapNs {
		s.MaxGapNs, s.MaxGapCPU, s.MaxGapAtNs = gap, cpu, now
	}
	if s.PhaseRoom != 0 {
		if p := s.PhaseAt(s.PhaseCount); gap > p.MaxGapNs {
			p.MaxGapNs, p.MaxGapCPU = gap, cpu
		}
	}
}

// blocked stands in gapFrom while the worker waits for something: that time is
// no gap.
const blocked = 0

// blocks ends the current gap before a call that may block, and returns the
// time. woke or rested begins the next.
func (s *Slab) blocks() int64 {
	now := bare.Now()
	s.gap(now, s.CPU)
	s.gapFrom = blocked
	return now
}

func (s *Slab) migrated(now int64, cpu int32) {
	if s.Migrations < MaxMigrations {
		s.MigrationList[s.Migrations] = Migration{AtNs: now, From: s.CPU, To: cpu}
	}
	s.Migrations++
	s.CPU = cpu
	s.onCPU(cpu)
}

func (s *Slab) onCPU(cpu int32) {
	if uint32(cpu) < MaxCPUs {
		s.CPUsUsed[cpu/64] |= 1 << (uint(cpu) % 64)
		if s.PhaseRoom != 0 {
			s.PhaseAt(s.PhaseCount).CPUsUsed[cpu/64] |= 1 << (uint(cpu) % 64)
		}
	}
}

// woke records a wake-up from a blocking call that began at start, and begins
// a new gap.
func (s *Slab) woke(start, now int64) {
	s.lookAtPhase()
	record(s.Wake, s.Reservoir, now-start)
	s.gapFrom = now
}

// record adds a duration to the latency record at addr.
func record(addr uintptr, reservoir uint64, ns int64) {
	if addr == 0 {
		return
	}
	l, v := LatencyAt(addr), uint64(max(ns, 0))
	l.Record(v, Samples(addr, reservoir))
	if l.Phase != 0 {
		LatencyAt(l.Phase).Record(v, Samples(l.Phase, l.PhaseSamples))
	}
}

// begin takes the readings that the end is compared with, and opens the loop.
func (s *Slab) begin() {
	shared := SharedAt(s.Shared)
	var migrated uint64
	if shared.NUMANodes > 1 {
		if v, ok := bare.ReadPagesMigrated(); ok {
			migrated, s.HasMigrated = v, 1
		}
	}
	s.Migrated = migrated
	s.SoftErrno[StepSchedstat] = uint32(bare.ReadSchedstat(&s.RunCPUNs, &s.RunDelayNs, &s.RunCount))
	s.CPUNs = bare.ThreadCPU()
	s.CPU = int32(bare.CPU())
	s.onCPU(s.CPU)
	now := bare.Now()
	s.StartNs, s.EndNs, s.gapFrom = now, now, now
	s.Seen = Counters{CPUNs: s.CPUNs, RunCPUNs: s.RunCPUNs, RunDelayNs: s.RunDelayNs, RunCount: s.RunCount, Migrated: s.Migrated}
	if s.PhaseRoom != 0 {
		s.beginPhase(atomic.LoadUint32(&shared.Turn), now)
	}
	atomic.StoreUint32(&s.State, StateRunning)
	shared.count(&shared.ReadyCount, 1)
}

// count reads what the kernel counts. What it does not tell stays as it was seen
// last.
func (s *Slab) count() {
	s.Seen.CPUNs = bare.ThreadCPU()
	var cpu, delay, count uint64
	if s.SoftErrno[StepSchedstat] == 0 && bare.ReadSchedstat(&cpu, &delay, &count) == 0 {
		s.Seen.RunCPUNs, s.Seen.RunDelayNs, s.Seen.RunCount = cpu, delay, count
	}
	if s.HasMigrated != 0 {
		if pages, ok := bare.ReadPagesMigrated(); ok {
			s.Seen.Migrated = pages
		}
	}
}

// end closes the books of the loop.
func (s *Slab) end() {
	s.checkpoint(bare.Now())
	if s.PhaseRoom != 0 {
		s.seePhase()
		s.endPhase(s.EndNs)
		s.PhaseCount++
	}
	if s.PhaseRoom == 0 {
		s.count()
	}
	atomic.StoreUint32(&s.State, StateStopped)
	s.CPUNs, s.Migrated = s.Seen.CPUNs-s.CPUNs, s.Seen.Migrated-s.Migrated
	s.RunCPUNs, s.RunDelayNs, s.RunCount = s.Seen.RunCPUNs-s.RunCPUNs, s.Seen.RunDelayNs-s.RunDelayNs, s.Seen.RunCount-s.RunCount
	if s.ownPages == 0 {
		first := SlabAt(s.Peers)
		s.SoftErrno[StepNUMAPages] = uint32(s.readPages(&s.NUMAPages, &s.PeerPages, &first.NUMAPages, &first.PagesRead))
	}
	atomic.StoreUint32(&s.State, StateCommitted)
}
