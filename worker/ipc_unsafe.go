package worker

import (
	"unsafe"

	"github.com/guestinit/guestinit/internal/bare"
)

// coldWords is the words that the cold half of ipc_variance strays over: more
// than a second-level cache of most CPUs.
const coldWords = 65536

// ipcVariance alternates between work that stays in registers and work that
// misses the caches, period times a pass.
func ipcVariance(s *Slab) {
	buf, errno := bare.MapPrivate(coldWords * 8)
	if errno != 0 {
		s.soft(errno)
		return
	}
	hot, cold, period := s.Params[0], s.Params[1], s.Params[2]
	for !s.Stopped() {
		start, whole := bare.Now(), true
		for i := uint64(0); i < period; i++ {
			if s.hotSteps(hot); s.Stopped() {
				whole = false
				break
			}
			s.coldSteps(buf, cold)
		}
		if whole {
			s.costed(start, bare.Now())
		}
		s.pass()
	}
	bare.Unmap(buf, coldWords*8)
}

// hotSteps multiplies n times in registers.
func (s *Slab) hotSteps(n uint64) {
	const piece = 1 << 20
	for ; n > piece && !s.Stopped(); n -= piece {
		aluScalar64(piece)
		s.WorkUnits += piece
		s.look(bare.Now())
	}
	if !s.Stopped() {
		n = min(n, piece)
		aluScalar64(n)
		s.WorkUnits += n
	}
}

// coldSteps reads, increments and writes n random words.
func (s *Slab) coldSteps(buf uintptr, n uint64) {
	x := s.random()
	for n > 0 && !s.Stopped() {
		piece := min(n, checkpointUnits)
		for range piece {
			*(*uint64)(unsafe.Add(bare.Pointer(buf), s.random()%coldWords*8)) += x
		}
		s.WorkUnits += piece
		s.look(bare.Now())
		n -= piece
	}
}
