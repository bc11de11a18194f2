package worker

import (
	"unsafe"

	"github.com/guestinit/guestinit/internal/bare"
)

// cacheTouches is the bytes that one pass of the cache types touches, cachePiece
// how many of them between two looks at the stop word, for each may fault a huge
// page in, and cacheLine the stride of cache_pipe.
const (
	cacheTouches = 1024
	cachePiece   = 64
	cacheLine    = 64
)

func cachePressure(s *Slab) { s.cacheLoop(false) }

func cacheYield(s *Slab) { s.cacheLoop(true) }

func (s *Slab) cacheLoop(yield bool) {
	size := uintptr(s.Params[0]) << 10
	buf, errno := bare.MapPrivate(size)
	if errno != 0 {
		s.soft(errno)
		return
	}
	at, stride := uintptr(0), uintptr(s.Params[1])%size
	for !s.Stopped() {
		for left := cacheTouches; left > 0 && !s.Stopped(); left -= cachePiece {
			at = touch(buf, size, at, stride, cachePiece)
			s.WorkUnits += cachePiece
		}
		if yield {
			s.yield()
		}
		s.pass()
	}
	bare.Unmap(buf, size)
}

// touch reads, increments and writes n bytes, stride apart and around again, and
// returns where the next one is. stride is below size.
func touch(buf, size, at, stride uintptr, n uint64) uintptr {
	for ; n > 0; n-- {
		*(*byte)(unsafe.Add(bare.Pointer(buf), at))++
		if at += stride; at >= size {
			at -= size
		}
	}
	return at
}

// cachePipe touches its buffer and then exchanges a byte with its partner, who
// touches another: what a wake-up on another CPU costs in cold caches shows in
// the rate.
func cachePipe(s *Slab) {
	size, burst := uintptr(s.Params[0])<<10, s.Params[1]
	buf, errno := bare.MapPrivate(size)
	if errno != 0 {
		s.soft(errno)
		return
	}
	s.beginWaits()
	for at := uintptr(0); !s.Stopped(); s.pass() {
		for left := burst; left > 0 && !s.Stopped(); {
			n := min(left, cacheTouches)
			at = touch(buf, size, at, cacheLine, n)
			s.WorkUnits += n
			if left -= n; left > 0 {
				s.look(bare.Now())
			}
		}
		if burst == 0 {
			s.WorkUnits++
		}
		if !s.exchange() {
			break
		}
	}
	s.endWaits()
	bare.Unmap(buf, size)
}
