package vhostuser

import "unsafe"

// word is a 16-bit number that the guest reads or writes at the same time.
type word = *uint16

// wordAt returns the number at b[off:off+2], or nil if it is not aligned.
func wordAt(b []byte, off int) word {
	p := unsafe.Pointer(&b[off : off+2][0])
	if uintptr(p)%2 != 0 {
		return nil
	}
	return word(p)
}

// load reads a number, before all later accesses.
//
//go:noescape
func load(w word) uint16

// store writes a number, after all earlier accesses.
//
//go:noescape
func store(w word, v uint16)

// fence orders earlier stores before later loads.
func fence()
