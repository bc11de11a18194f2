// Package sample is the 32-bit form in which durations are kept one by one: the
// reservoirs of workers have it in memory, reports carry it on. Half the memory
// of a guest full of reservoirs, and nothing to convert when they are sent.
//
// The functions may run outside the Go runtime. The package imports nothing.
package sample

import "math/bits"

// A word below 1<<31 is the duration itself, in ns. Above, the word is that bit, 5
// bits of exponent and 26 of mantissa, of which the leading 1 is left out. Words
// are in the order of their durations.
const (
	mantissaBits = 26
	mantissaMask = 1<<mantissaBits - 1
	leastShift   = 31 - mantissaBits // of the least duration that is not its own word
)

// Exact is the least duration in ns (2.1 s) that may lose digits, and the bit of
// words that stand for such.
const Exact = 1 << 31

// Max is the longest duration: 2⁶³−1 ns, less what it has lost.
const Max = (mantissaMask | 1<<mantissaBits) << (leastShift + 31)

// Pack returns the word for a duration in ns. From Exact on the word's duration
// is less by at most 1 part in 2²⁶; from 1<<63 on it is Max.
func Pack(ns uint64) uint32 {
	if ns < Exact {
		return uint32(ns)
	}
	shift := uint(bits.Len64(ns)) - 1 - mantissaBits
	if shift > leastShift+31 {
		return 1<<32 - 1
	}
	return Exact | uint32(shift-leastShift)<<mantissaBits | uint32(ns>>shift)&mantissaMask
}

// Ns returns the duration that a word stands for, in ns. Every word is one.
func Ns(word uint32) uint64 {
	if word < Exact {
		return uint64(word)
	}
	shift := leastShift + uint(word>>mantissaBits)&31
	return uint64(word&mantissaMask|1<<mantissaBits) << shift
}
