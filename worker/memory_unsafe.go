package worker

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

const basePage = 4096

// pageFaultChurn faults random small pages in and throws all of them away again.
func pageFaultChurn(s *Slab) {
	size := uintptr(s.Params[0]) << 10
	touches, spin := s.Params[1], s.Params[2]
	buf, errno := bare.MapPrivate(size)
	if errno != 0 {
		s.soft(errno)
		return
	}
	bare.Advise(buf, size, unix.MADV_NOHUGEPAGE)
	pages := uint64(size / basePage)
	for !s.Stopped() {
		for i := uint64(0); i < touches; i++ {
			if i%spinUnits == spinUnits-1 {
				if s.look(bare.Now()); s.Stopped() {
					break
				}
			}
			*(*byte)(unsafe.Add(bare.Pointer(buf), s.randomBelow(pages)*basePage)) = 1
			s.WorkUnits++
		}
		s.soft(bare.Advise(buf, size, unix.MADV_DONTNEED))
		if spin > 0 {
			s.work(spin)
		}
		s.pass()
	}
	bare.Unmap(buf, size)
}

// numaWorkingSetSweep writes every page of a region, bound to another of the
// target nodes on each pass. The pages it reports are those of the region alone.
func numaWorkingSetSweep(s *Slab) {
	size, period, nodes := uintptr(s.Params[0])<<10, int64(s.Params[1]), s.Params[2]
	buf, errno := bare.MapPrivate(size)
	if errno != 0 {
		s.soft(errno)
		return
	}
	turn := uint64(s.TID)
	for !s.Stopped() {
		if nodes != 0 {
			s.soft(bare.BindMoving(buf, size, nthBit(nodes, turn)))
			turn++
		}
		for at := uintptr(0); at < size; at += basePage {
			*(*byte)(unsafe.Add(bare.Pointer(buf), at))++
			s.WorkUnits++
			if at%(spinUnits*basePage) == 0 {
				if s.look(bare.Now()); s.Stopped() {
					break
				}
			}
		}
		if period > 0 {
			s.sleepFor(period)
		}
		s.pass()
	}
	s.ownPages = 1
	s.SoftErrno[StepNUMAPages] = uint32(bare.ReadNumaPagesOf(buf, &s.NUMAPages))
	bare.Unmap(buf, size)
}

// nthBit is the n-th bit that is set in mask, counted around; mask is not 0.
func nthBit(mask, n uint64) uint64 {
	count := uint64(0)
	for m := mask; m != 0; m &= m - 1 {
		count++
	}
	m := mask
	for n %= count; n > 0; n-- {
		m &= m - 1
	}
	return m & -m
}

// NodeTable is the region of numa_migration_churn: the CPUs of each online node.
type NodeTable struct {
	Count uint64
	CPUs  [bare.MaxNodes]CPUMask
}

// NodeTableAt is the node table at an address.
func NodeTableAt(addr uintptr) *NodeTable { return (*NodeTable)(bare.Pointer(addr)) }

// NodeTableSize is the size of a node table in bytes.
const NodeTableSize = unsafe.Sizeof(NodeTable{})

// numaMigrationChurn moves itself from node to node.
func numaMigrationChurn(s *Slab) {
	table, period := NodeTableAt(s.Region), int64(s.Params[0])
	for node := uint64(0); !s.Stopped(); node++ {
		if n := min(table.Count, bare.MaxNodes); n > 0 {
			s.soft(setAffinity(&table.CPUs[node%n%bare.MaxNodes]))
		}
		s.sleepUntil(bare.Now() + period)
		s.rested()
		s.spin(smallSpin)
		s.pass()
	}
}

// fanOutStamps is where the stamps of fan_out_compute begin in its region,
// behind the generation.
const fanOutStamps = 8

func (s *Slab) stamp(pos uint32) *int64 {
	return (*int64)(bare.Pointer(s.Region + fanOutStamps + uintptr(pos)*8))
}

// fanOutCompute is a messenger that wakes receivers, who sleep a little and then
// multiply matrices, as the requests of a server do. A receiver's latency begins
// with the round that woke it: it clears its stamp before it waits, and the
// messenger stamps the receivers that are clear before each round.
func fanOutCompute(s *Slab) {
	generation := s.word(0)
	if s.Pos != 0 {
		s.computeReceiver(generation)
		return
	}
	s.IsMessenger = 1
	receivers := uint32(s.Params[0])
	for !s.Stopped() {
		now := bare.Now()
		for i := uint32(1); i <= receivers; i++ {
			if stamp := s.stamp(i); atomic.LoadInt64(stamp) == 0 {
				atomic.StoreInt64(stamp, now)
			}
		}
		atomic.AddUint32(generation, 1)
		bare.FutexWake(generation, int32(receivers))
		s.spin(smallSpin)
		s.pass()
	}
}

func (s *Slab) computeReceiver(generation *uint32) {
	side := matrixSide(s.Params[1])
	size := uintptr(3 * 8 * side * side)
	buf, errno := bare.MapPrivate(size)
	if errno != 0 {
		s.soft(errno)
		return
	}
	stamp := s.stamp(s.Pos)
	for !s.Stopped() {
		s.blocks()
		atomic.StoreInt64(stamp, 0)
		for !s.Stopped() {
			was := atomic.LoadUint32(generation)
			if atomic.LoadInt64(stamp) != 0 {
				break
			}
			bare.FutexWait(generation, was, pollNs)
			s.lookAtPhase()
		}
		if s.Stopped() {
			break
		}
		s.woke(atomic.LoadInt64(stamp), bare.Now())
		if s.Params[3] > 0 {
			s.sleepUntil(bare.Now() + int64(s.Params[3]))
			s.rested()
		}
		for i := uint64(0); i < s.Params[2] && !s.Stopped(); i++ {
			s.multiply(buf, side)
			s.WorkUnits++
		}
		s.pass()
	}
	bare.Unmap(buf, size)
}

// matrixSide is the side of the largest three square matrices of 64-bit words
// that fit into so many KiB.
func matrixSide(kib uint64) uint64 {
	side := uint64(1)
	for 3*8*(side+1)*(side+1) <= kib<<10 {
		side++
	}
	return side
}

// lookProducts is how many products multiply makes between two looks: some
// milliseconds where each misses the caches.
const lookProducts = 1 << 16

// multiply computes the third matrix of the buffer from the first two.
func (s *Slab) multiply(buf uintptr, side uint64) {
	a, b, c := buf, buf+uintptr(8*side*side), buf+uintptr(16*side*side)
	products := uint64(0)
	for i := uint64(0); i < side*side; i++ {
		row, col, sum := i/side, i%side, uint64(0)
		for k := uint64(0); k < side; k++ {
			sum += *cell(a, row*side+k) * *cell(b, k*side+col)
		}
		*cell(c, i) = sum
		if products += side; products >= lookProducts {
			products = 0
			if s.look(bare.Now()); s.Stopped() {
				return
			}
		}
	}
}

func cell(matrix uintptr, i uint64) *uint64 {
	return (*uint64)(bare.Pointer(matrix + uintptr(i)*8))
}
