package worker

import (
	"structs"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// Limits of what a slab can hold.
const (
	MaxParams     = 16
	MaxCPUs       = 8192
	MaxMigrations = 256
	MaxDataFDs    = 16
	MaxOwnedFDs   = MaxDataFDs + 2
	ReservoirCap  = 100_000 // samples per latency population
)

// The states of a worker, in order. The worker writes them; a report is real
// when the state is StateCommitted.
const (
	StateUnborn    = 0 // cloned, or not even that
	StateAtGate    = 1 // waiting for the start gate
	StateSetup     = 2 // behind the gate, putting its attributes in place
	StateRunning   = 3 // ready: in the work loop
	StateStopped   = 4 // left the work loop
	StateCommitted = 5 // every figure of the slab is final
)

// The ways a worker is born.
const (
	ModeProcess = 0 // a process of its own
	ModeThread  = 1 // a thread of the spawner's process
	ModeMember  = 2 // a thread of a container's leader
)

// The set-up steps of a worker, in the order they are made. Each may fail
// softly: its errno lands in Slab.SoftErrno.
const (
	StepAffinity = iota
	StepSched
	StepMemPolicy
	StepNice
	StepComm
	StepGID
	StepUID
	StepNUMANode
	StepSchedstat
	StepNUMAPages
	StepWork // what the work type asks for itself: a class for a role, memory, a page move
	NumSteps
)

// StepNames are the names of the set-up steps in reports.
var StepNames = [NumSteps]string{"affinity", "sched_policy", "mem_policy", "nice", "comm", "gid", "uid",
	"numa_node", "schedstat", "numa_pages", "work"}

// CPUMask is a CPU set as sched_setaffinity(2) takes it.
type CPUMask [MaxCPUs / 64]uint64

// Setup is what the worker puts in place before its first pass. Steps tells
// which steps it makes, a bit each.
type Setup struct {
	_            structs.HostLayout
	Steps        uint32
	Policy       uint32 // SCHED_* for StepSched
	Priority     uint32 // SCHED_FIFO, SCHED_RR
	Nice         int32
	DLRuntimeNs  uint64 // SCHED_DEADLINE
	DLDeadlineNs uint64
	DLPeriodNs   uint64
	MemMode      uint64 // MPOL_* mode with its flags
	MemMaxNode   uint64 // highest node + 2
	UID, GID     uint32
	Comm         [16]byte
	MemNodes     [bare.MaxNodes / 64]uint64
	Affinity     CPUMask
	NUMANodeMask CPUMask // CPUs of numa_node
}

// Counters is what the kernel counts of a worker, from whenever it does.
type Counters struct {
	CPUNs                          int64
	RunCPUNs, RunDelayNs, RunCount uint64
	Migrated                       uint64
}

// Slab is the shared memory through which one worker and its spawner talk. It
// holds no pointers that a collector would have to know: addresses are uintptr
// and mean the same in both, since the worker inherits the mappings.
type Slab struct {
	_ structs.HostLayout

	// Written by the spawner before birth.
	SpawnerPID int32
	Type       uint32 // index in All
	Pos        uint32 // position within the set of workers that share a region
	Mode       uint32 // how it was born: ModeProcess, ModeThread, ModeMember
	NumFDs     uint32
	FDs        [MaxOwnedFDs]int32 // owned descriptors, ascending; all others are closed
	ReadFD     int32              // pipe ends, −1 for none
	WriteFD    int32
	_          uint32
	Params     [MaxParams]uint64
	Shared     uintptr // *Shared of the handle
	Container  uintptr // *Container of a member, else 0
	Region     uintptr // memory shared with the group's peers
	Wake       uintptr // *bare.Latency, 0 where the type promises none
	Cost       uintptr
	Timer      uintptr
	Reservoir  uint64 // samples behind each Latency

	Phases      uintptr // *Phase of the first slice, the others PhaseStride apart
	PhaseStride uintptr
	PhaseRoom   uint32 // slices there is room for; 0: the run has no phases
	_           uint32

	// Made by the spawner for the work type, which says what it uses of it.
	DataFDs    [MaxDataFDs]int32 // owned descriptors: backing file, epoll instance, cgroup.procs files
	DataBase   uint64            // the worker's part of its backing file, in bytes
	DataBytes  uint64
	Program    uintptr // *Program of exec
	Peers      uintptr // *Slab of the group's first worker
	PeerStride uintptr // from one worker of the group to the next
	PeerCount  uint32
	_          uint32

	// Written by the spawner while the worker runs.
	_    [64]byte
	Stop uint32
	_    [60]byte

	// Written by the kernel.
	LiveTID uint32 // of a thread: its tid from the clone until it has ended; a futex
	_       [60]byte

	// Written by the worker.
	State       uint32
	TID         int32
	IsMessenger uint32
	ExitWord    uint32 // exit status + 1, once the worker ended by itself
	_           uint32
	PhaseCount  uint32 // slices that were closed
	_           uint32
	ExitCPUNs   int64 // CPU time of a worker that ended by itself
	CPU         int32 // at the last checkpoint
	WorkUnits   uint64
	Iterations  uint64
	StartNs     int64  // CLOCK_MONOTONIC of the first pass
	EndNs       int64  // of the last checkpoint, in the end of the last pass
	lastCheck   uint64 // work units at the last checkpoint
	gapFrom     int64  // where the current gap began
	CPUNs       int64
	MaxGapNs    int64
	MaxGapCPU   int32
	_           int32
	MaxGapAtNs  int64 // CLOCK_MONOTONIC
	RunCPUNs    uint64
	RunDelayNs  uint64
	RunCount    uint64
	Migrated    uint64 // numa_pages_migrated over the loop
	HasMigrated uint32
	PeerPages   uint32 // as of Phase
	PagesRead   uint32
	_           uint32
	Seen        Counters // when the last slice was closed, or at the end
	Migrations  uint64
	SoftErrno   [NumSteps]uint32
	rng         uint64
	VectorBits  uint32 // of alu_hot: the width that ran
	ownPages    uint32 // 1: the loop filled NUMAPages itself, from its own memory
	ticks       uint32 // 1: a signal ends every call that waits after pollNs
	ExecErrno   uint32 // of the exec, or of what it needs, if it failed
	Fault       bare.Fault

	Setup         Setup
	Got           Got
	CPUsUsed      CPUMask
	NUMAPages     [bare.MaxNodes]uint64
	MigrationList [MaxMigrations]Migration
}

// Container is the shared memory between a container's leader, its members and
// the spawner.
type Container struct {
	_          structs.HostLayout
	SpawnerPID int32
	Members    uint32
	FirstSlab  uintptr // of the members, which lie SlabStride apart
	SlabStride uintptr
	Areas      uintptr // of the members, which lie bare.AreaSize apart
	Entry      uintptr // bare.Code of MemberMain
	Shared     uintptr // *Shared
	Steps      uint32  // StepGID, StepUID: what the leader drops to
	UID, GID   uint32
	Comm       [16]byte
	NumFDs     uint32
	_          [60]byte
	Stop       uint32 // set by SIGUSR1
	Gate       uint32 // opened by the leader when all members live; a futex
	Alive      uint32 // members that were started
	State      uint32 // StateUnborn, StateAtGate, StateRunning of the leader
	Errno      uint32 // of the clone that failed, if one did
	Fault      bare.Fault
}

// ContainerAt is the container block at an address.
func ContainerAt(addr uintptr) *Container { return (*Container)(bare.Pointer(addr)) }

// ContainerSize is the size of a Container in bytes.
const ContainerSize = unsafe.Sizeof(Container{})

// Migration is one change of CPU that a checkpoint saw.
type Migration struct {
	AtNs     int64 // CLOCK_MONOTONIC
	From, To int32
}

// Shared is the memory that all workers of one handle share.
type Shared struct {
	_          structs.HostLayout
	Gate       uint32 // 1: open; a futex
	_          [60]byte
	BornCount  uint32 // workers that reached StateAtGate; a futex
	_          [60]byte
	ReadyCount uint32 // workers that reached StateRunning; a futex
	_          [60]byte
	Turn       uint32 // changes of phase since the gate opened
	NUMANodes  uint32 // online nodes
	SlackNs    uint64 // timer slack of the spawner's process, which workers get; 0: they keep theirs
	PidFD      int32  // of the process that was cloned last; the kernel writes it
	_          uint32
	Marks      uintptr // *Mark of the phase at turn 0, the others behind it
	BornNs     int64   // CLOCK_MONOTONIC of the last arrival at the gate
	Awaited    uint32  // the count at which the spawner is woken that waits for it, 0: it does not wait
	_          [20]byte
}

// SlabAt is the slab at an address.
func SlabAt(addr uintptr) *Slab { return (*Slab)(bare.Pointer(addr)) }

// SharedAt is the shared block at an address.
func SharedAt(addr uintptr) *Shared { return (*Shared)(bare.Pointer(addr)) }

// LatencyAt is the latency record at an address, nil for 0.
func LatencyAt(addr uintptr) *bare.Latency { return (*bare.Latency)(bare.Pointer(addr)) }

// SlabSize and SharedSize are the sizes of the two blocks in bytes.
const (
	SlabSize   = unsafe.Sizeof(Slab{})
	SharedSize = unsafe.Sizeof(Shared{})
)

// LatencySize is the size in bytes of a latency record with n samples behind it.
func LatencySize(n int) uintptr { return unsafe.Sizeof(bare.Latency{}) + uintptr(n)*4 }

// Samples is the reservoir behind the latency record at addr, of packed values.
func Samples(addr uintptr, n uint64) []uint32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(bare.Pointer(addr+unsafe.Sizeof(bare.Latency{}))), n)
}

// Stopped tells whether the spawner asked the worker to stop.
func (s *Slab) Stopped() bool { return atomic.LoadUint32(&s.Stop) != 0 }

// word is a futex word of the group's region.
func (s *Slab) word(offset uintptr) *uint32 { return (*uint32)(bare.Pointer(s.Region + offset)) }

// readByte reads one byte into the stack, and returns how many came.
func readByte(fd int) (int, unix.Errno) {
	var b [1]byte
	return bare.Read(fd, unsafe.Pointer(&b), 1)
}

// writeByte writes one byte.
func writeByte(fd int) bool {
	b := [1]byte{1}
	n, errno := bare.Write(fd, unsafe.Pointer(&b), 1)
	return errno == 0 && n == 1
}
