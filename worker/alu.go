package worker

import (
	"golang.org/x/sys/cpu"

	"github.com/guestinit/guestinit/internal/bare"
)

// The widths of alu_hot, in the order of aluWidths.
const (
	aluScalar = iota
	alu128
	alu256
	alu512
	aluAMX
	aluWidest
)

var aluWidths = []string{"scalar", "vec128", "vec256", "vec512", "amx", "widest"}

// aluSteps is the steps of one pass: each multiplies and adds in four
// independent chains.
const aluSteps = 1024

func aluHot(s *Slab) {
	s.VectorBits = vectorBits(s.Params[0])
	for !s.Stopped() {
		s.aluPass()
		s.pass()
	}
}

// aluPass does aluSteps steps of the width that was chosen and records their
// cost.
func (s *Slab) aluPass() {
	start := bare.Now()
	switch s.VectorBits {
	case 512:
		aluVec512(aluSteps)
	case 256:
		aluVec256(aluSteps)
	case 128:
		aluVec128(aluSteps)
	default:
		aluScalar64(aluSteps)
	}
	s.WorkUnits += aluSteps
	s.costed(start, bare.Now())
}

// vectorBits is the width in bits that runs when width is asked for: the widest
// that the CPU has and that is no wider. Matrix tiles (amx) are never used.
func vectorBits(width uint64) uint32 {
	most := widestVector()
	switch width {
	case aluScalar:
		return 64
	case alu128:
		return min(128, most)
	case alu256:
		return min(256, most)
	}
	return min(512, most)
}

// AskedBits is the width in bits that a value of alu_hot's parameter asks for: 0
// for widest, which is content with any, and 1024 for amx, which no CPU fulfils.
func AskedBits(width uint64) uint32 {
	return [...]uint32{aluScalar: 64, alu128: 128, alu256: 256, alu512: 512, aluAMX: 1024, aluWidest: 0}[width]
}

// widestVector is the widest vector in bits that there is code for and that CPU
// and kernel offer.
func widestVector() uint32 {
	switch {
	case cpu.X86.HasAVX512F:
		return 512
	case cpu.X86.HasAVX2:
		return 256
	}
	return 128 // SSE2 and NEON are part of their architectures
}

// The bodies of alu_hot: n steps of four independent chains, in registers alone.

//go:noescape
func aluScalar64(n uint64)

//go:noescape
func aluVec128(n uint64)

//go:noescape
func aluVec256(n uint64)

//go:noescape
func aluVec512(n uint64)
