package worker

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// The types of this file change an attribute and yield on each pass; wake
// latency is the yield.

// niceSweep goes through all nice values that it may have.
func niceSweep(s *Slab) {
	before := bare.Nice()
	lowest := 0
	if bare.SetNice(-20) == 0 {
		lowest = -20
	}
	for nice := lowest; !s.Stopped(); nice++ {
		if nice == 20 {
			nice = lowest
		}
		s.spin(spinUnits / 2)
		if errno := bare.SetNice(nice); errno != unix.EACCES && errno != unix.EPERM {
			s.soft(errno)
		}
		s.yield()
		s.pass()
	}
	bare.SetNice(before)
}

// affinityChurn pins itself to one of the CPUs that it had at first, drawn anew
// each time.
func affinityChurn(s *Slab) {
	var entry, one CPUMask
	s.soft(bare.Affinity(unsafe.Pointer(&entry), unsafe.Sizeof(entry)))
	cpus := entry.count()
	for !s.Stopped() {
		s.work(s.Params[0])
		if cpus > 0 {
			cpu := entry.nth(s.randomBelow(cpus))
			one[cpu/64] = 1 << (cpu % 64)
			s.soft(setAffinity(&one))
			one[cpu/64] = 0
		}
		s.yield()
		s.pass()
	}
	setAffinity(&entry)
}

func (m *CPUMask) count() (n uint64) {
	for i := range m {
		for w := m[i]; w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}

// nth is the n-th CPU of the mask, from 0; it must have that many.
func (m *CPUMask) nth(n uint64) (cpu uint64) {
	for i := range m {
		for w := m[i]; w != 0; w &= w - 1 {
			if n == 0 {
				for cpu = uint64(i) * 64; w&1 == 0; w >>= 1 {
					cpu++
				}
				return cpu
			}
			n--
		}
	}
	return 0
}

// crossAffinityChurn sets the affinity of the other workers of its group, in
// turn to all CPUs that it had itself at first and to all but the last.
func crossAffinityChurn(s *Slab) {
	var all, fewer CPUMask
	s.soft(bare.Affinity(unsafe.Pointer(&all), unsafe.Sizeof(all)))
	fewer = all
	if cpus := all.count(); cpus > 1 {
		last := all.nth(cpus - 1)
		fewer[last/64] &^= 1 << (last % 64)
	}
	for turn := 0; !s.Stopped(); turn ^= 1 {
		s.work(s.Params[0])
		mask := &all
		if turn == 1 {
			mask = &fewer
		}
		for i := uintptr(0); i < uintptr(s.PeerCount) && !s.Stopped(); i++ {
			peer := SlabAt(s.Peers + i*s.PeerStride)
			if peer != s && atomic.LoadUint32(&peer.State) == StateRunning {
				errno := bare.SetAffinity(int(atomic.LoadInt32(&peer.TID)), unsafe.Pointer(mask), unsafe.Sizeof(*mask))
				if errno != unix.ESRCH { // it ended in between
					s.soft(errno)
				}
			}
		}
		s.yield()
		s.pass()
	}
}

// policyChurn goes through the scheduling policies that it may have.
func policyChurn(s *Slab) {
	policies := [...]int{unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE, unix.SCHED_FIFO, unix.SCHED_RR}
	n := 3
	if bare.SetScheduler(0, unix.SCHED_FIFO, 1) == 0 {
		n = len(policies)
	}
	for i := 0; !s.Stopped(); i++ {
		if i == n {
			i = 0
		}
		s.work(s.Params[0])
		priority := 0
		if policies[i] == unix.SCHED_FIFO || policies[i] == unix.SCHED_RR {
			priority = 1
		}
		s.soft(bare.SetScheduler(0, policies[i], priority))
		s.yield()
		s.pass()
	}
	bare.SetScheduler(0, unix.SCHED_NORMAL, 0)
}
