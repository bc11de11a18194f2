package spawn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

const (
	pageSize = 4096

	// regionSize keeps the memory of two groups out of each other's cache lines
	// and the adjacent line that CPUs prefetch.
	regionSize = 128
)

// arena is the shared memory of one handle: the Shared block, a Container block
// for each group, the marks of phases, then group by group the slabs and the
// regions.
type arena struct {
	mem    []byte
	shared *worker.Shared
	slabs  []*worker.Slab
	turns  int   // marks of phases, 0 for a workload without phases
	pipes  []int // every descriptor made for the workers, for closing
	supplies
}

// newArena maps and fills the memory for all workers of the plans, and makes
// their pipes. Nothing is left behind when it fails.
func newArena(plans []groupPlan, samples, phases int) (a *arena, err error) {
	layouts := make([]slabLayout, len(plans))
	turns := 0
	if phases > 0 {
		turns = phases + 1 // the time before the first phase is one too
	}
	marks := pageSize + uintptr(len(plans))*containerStride
	head := roundUp(marks+uintptr(turns)*worker.MarkSize, pageSize)
	size := head
	for i := range plans {
		layouts[i] = layoutOf(plans[i].work.Type, samples, turns)
		size += layouts[i].size*uintptr(plans[i].group.Workers) + regionBytes(&plans[i])
	}
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, explainMmap(size, err)
	}
	a = &arena{mem: mem, shared: (*worker.Shared)(unsafe.Pointer(&mem[0])), turns: turns}
	a.shared.Marks = bare.Address(mem) + marks
	made := a
	defer func() {
		if err != nil {
			err = errors.Join(err, made.free())
		}
	}()
	a.shared.NUMANodes = uint32(onlineNodes())
	a.shared.SlackNs = theCloner().slackNs
	at := bare.Address(mem) + head
	for i := range plans {
		if at, err = a.fillGroup(&plans[i], layouts[i], at, uint64(samples)); err != nil {
			return nil, fmt.Errorf("groups[%d]: %w", i, err)
		}
	}
	return a, nil
}

// containerStride is how far apart the Container blocks lie.
const containerStride = (worker.ContainerSize + 63) / 64 * 64

// container is the Container block of a group.
func (a *arena) container(group int) *worker.Container {
	return worker.ContainerAt(bare.Address(a.mem) + pageSize + uintptr(group)*containerStride)
}

// slabLayout is where the latency records lie behind a slab, and the phases
// behind those; 0 means none. In a phase, records lie the same way.
type slabLayout struct {
	wake, cost, timer, size uintptr

	phases                uintptr // of the first slice
	phaseStride           uintptr
	room                  int
	phaseWake, phaseTimer uintptr // from the begin of a slice
}

func layoutOf(t *worker.Type, samples, turns int) slabLayout {
	l := slabLayout{size: roundUp(worker.SlabSize, pageSize)}
	place := func(size *uintptr, promised bool, samples int) (at uintptr) {
		if promised {
			at = *size
			*size += roundUp(worker.LatencySize(samples), pageSize)
		}
		return at
	}
	l.wake, l.cost, l.timer = place(&l.size, t.Wake, samples), place(&l.size, t.Cost, samples), place(&l.size, t.Timer, samples)
	if turns > 0 {
		l.phaseStride = roundUp(worker.PhaseSize, pageSize)
		l.phaseWake = place(&l.phaseStride, t.Wake, worker.PhaseSamples)
		l.phaseTimer = place(&l.phaseStride, t.Timer, worker.PhaseSamples)
		l.phases, l.room = l.size, turns
		l.size += uintptr(l.room) * l.phaseStride
	}
	return l
}

// addPhases gives the slab at address at its room for phases.
func (l *slabLayout) addPhases(s *worker.Slab, at uintptr) {
	if l.room == 0 {
		return
	}
	s.Phases, s.PhaseStride, s.PhaseRoom = at+l.phases, l.phaseStride, uint32(l.room)
	for i := range s.PhaseRoom {
		p := s.PhaseAt(i)
		base := s.Phases + uintptr(i)*l.phaseStride
		if l.phaseWake != 0 {
			p.Wake = base + l.phaseWake
		}
		if l.phaseTimer != 0 {
			p.Timer = base + l.phaseTimer
		}
	}
}

func roundUp(n, to uintptr) uintptr { return (n + to - 1) / to * to }

// regionStride is how far apart the regions of two sets lie.
func regionStride(p *groupPlan) uintptr { return roundUp(p.work.RegionBytes(), regionSize) }

func regionBytes(p *groupPlan) uintptr {
	if p.work.Type.Resource == worker.NodeCPUs {
		return roundUp(worker.NodeTableSize, pageSize)
	}
	return roundUp(uintptr(p.group.Workers/p.work.GroupSize())*regionStride(p), pageSize)
}

// fillGroup writes the slabs of one group at address at and returns the address
// behind it.
func (a *arena) fillGroup(p *groupPlan, l slabLayout, at uintptr, samples uint64) (uintptr, error) {
	first, set := len(a.slabs), p.work.GroupSize()
	group, regions := at, at+l.size*uintptr(p.group.Workers)
	for i := range p.group.Workers {
		s := worker.SlabAt(at)
		s.Type, s.Pos, s.Params = uint32(p.work.Index), uint32(i%set), p.work.Values
		s.SpawnerPID = int32(unix.Getpid())
		s.Shared = bare.Address(a.mem)
		s.ReadFD, s.WriteFD = -1, -1
		s.Reservoir = samples
		l.addPhases(s, at)
		offset := func(o uintptr) uintptr {
			if o == 0 {
				return 0
			}
			return at + o
		}
		s.Wake, s.Cost, s.Timer = offset(l.wake), offset(l.cost), offset(l.timer)
		s.Region = regions + uintptr(i/set)*regionStride(p)
		s.Peers, s.PeerStride, s.PeerCount = group, l.size, uint32(p.group.Workers)
		if p.setup.Steps != 0 {
			s.Setup = p.setup // touches further pages of the slab
		}
		if p.random != nil {
			if err := drawCPUs(&s.Setup, p.random.From, p.random.Count); err != nil {
				return 0, err
			}
		}
		a.slabs = append(a.slabs, s)
		at += l.size
	}
	return at + regionBytes(p), a.supply(p, a.slabs[first:])
}

// drawCPUs picks count CPUs of from, or all if there are fewer.
func drawCPUs(u *worker.Setup, from []int, count int) error {
	pool := slices.Clone(from)
	rand.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	return setMask(&u.Affinity, pool[:min(count, len(pool))])
}

// makePipes gives each even worker and the odd one after it two pipes: the even
// one writes the first and reads the second.
func (a *arena) makePipes(slabs []*worker.Slab) error {
	for i := 0; i+1 < len(slabs); i += 2 {
		ab, err := a.pipe()
		if err != nil {
			return err
		}
		ba, err := a.pipe()
		if err != nil {
			return err
		}
		ownPipes(slabs[i], ba[0], ab[1])
		ownPipes(slabs[i+1], ab[0], ba[1])
	}
	return nil
}

func (a *arena) pipe() ([2]int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return p, fmt.Errorf("make pipe (%d descriptors of this workload are open; see `ulimit -n`): %w", len(a.pipes), err)
	}
	a.pipes = append(a.pipes, p[0], p[1])
	return p, nil
}

// ownPipes makes two pipe ends the worker's.
func ownPipes(s *worker.Slab, read, write int) {
	s.ReadFD, s.WriteFD = int32(read), int32(write)
	own(s, read)
	own(s, write)
}

// own makes a descriptor the worker's. The list stays in ascending order.
func own(s *worker.Slab, fd int) {
	i := int(s.NumFDs)
	for ; i > 0 && s.FDs[i-1] > int32(fd); i-- {
		s.FDs[i] = s.FDs[i-1]
	}
	s.FDs[i] = int32(fd)
	s.NumFDs++
}

// closePipes closes the spawner's copies of all descriptors of the workers.
func (a *arena) closePipes() {
	for _, fd := range a.pipes {
		unix.Close(fd)
	}
	a.pipes = nil
}

func (a *arena) free() error {
	a.closePipes()
	err := a.withdraw()
	if a.mem == nil {
		return err
	}
	mem := a.mem
	a.mem, a.shared, a.slabs = nil, nil, nil
	if unmapErr := unix.Munmap(mem); unmapErr != nil {
		err = errors.Join(err, fmt.Errorf("unmap shared memory of the workload: %w", unmapErr))
	}
	return err
}

// explainMmap says what the errno of a failed mapping means here.
func explainMmap(size uintptr, err error) error {
	why := ""
	switch {
	case errors.Is(err, unix.ENOMEM):
		why = " (no memory, RLIMIT_AS reached, or more than vm.max_map_count mappings)"
	case errors.Is(err, unix.EPERM):
		why = " (refused by a memory cgroup or a seccomp filter)"
	case errors.Is(err, unix.EINVAL):
		why = " (the size is not one the kernel takes)"
	}
	return fmt.Errorf("map %d bytes of shared memory for the workload%s: %w", size, why, err)
}
