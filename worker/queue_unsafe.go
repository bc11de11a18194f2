package worker

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// queue is the bounded queue of producer_consumer_imbalance, for any number of
// producers and consumers. The indices only grow; the slots follow the struct.
type queue struct {
	reserved     uint64 // slots that producers took
	tail         uint64 // slots that consumers emptied
	producerWake uint32 // grows when a slot was emptied; a futex
	consumerWake uint32 // grows when a slot was filled; a futex
	published    uint64 // slots that are filled
}

const queueHead = unsafe.Sizeof(queue{})

func (s *Slab) queue() *queue { return (*queue)(bare.Pointer(s.Region)) }

func (s *Slab) slot(i, depth uint64) *uint64 {
	return (*uint64)(bare.Pointer(s.Region + queueHead + uintptr(i%depth)*8))
}

func producerConsumerImbalance(s *Slab) {
	producer := uint64(s.Pos) < s.Params[0]
	rate, consume, depth := s.Params[2], s.Params[3], s.Params[4]
	for !s.Stopped() {
		if producer {
			if !s.produce(depth) {
				return
			}
			if rate > 0 {
				s.sleepUntil(bare.Now() + int64(1e9/rate))
				s.rested()
			}
		} else {
			if !s.consume(depth) {
				return
			}
			s.work(consume)
		}
		s.pass()
	}
}

// produce puts one item into the queue, waiting while it is full. It returns
// false when the worker is to stop.
func (s *Slab) produce(depth uint64) bool {
	q := s.queue()
	var mine uint64
	for {
		if s.Stopped() {
			return false
		}
		wake, tail := atomic.LoadUint32(&q.producerWake), atomic.LoadUint64(&q.tail)
		mine = atomic.LoadUint64(&q.reserved)
		if mine-tail >= depth {
			start := s.blocks()
			bare.FutexWait(&q.producerWake, wake, pollNs)
			s.woke(start, bare.Now())
			continue
		}
		if atomic.CompareAndSwapUint64(&q.reserved, mine, mine+1) {
			break
		}
	}
	atomic.StoreUint64(s.slot(mine, depth), mine+1)
	for atomic.LoadUint64(&q.published) != mine {
		if s.Stopped() { // an earlier producer may have been stopped, too
			return false
		}
		bare.Yield()
	}
	atomic.StoreUint64(&q.published, mine+1)
	atomic.AddUint32(&q.consumerWake, 1)
	bare.FutexWake(&q.consumerWake, 1)
	s.WorkUnits++
	return true
}

// consume takes one item out of the queue, waiting while it is empty. It returns
// false when the worker is to stop. No producer can reuse the slot between the
// read and the exchange: the tail must have passed it first, and then the
// exchange fails.
func (s *Slab) consume(depth uint64) bool {
	q := s.queue()
	for !s.Stopped() {
		wake, tail := atomic.LoadUint32(&q.consumerWake), atomic.LoadUint64(&q.tail)
		if tail == atomic.LoadUint64(&q.published) {
			start := s.blocks()
			bare.FutexWait(&q.consumerWake, wake, pollNs)
			s.woke(start, bare.Now())
			continue
		}
		item := atomic.LoadUint64(s.slot(tail, depth))
		if !atomic.CompareAndSwapUint64(&q.tail, tail, tail+1) {
			continue
		}
		if item != tail+1 { // the queue lost or repeated an item
			s.soft(unix.EPROTO)
		}
		atomic.AddUint32(&q.producerWake, 1)
		bare.FutexWake(&q.producerWake, 1)
		return true
	}
	return false
}
