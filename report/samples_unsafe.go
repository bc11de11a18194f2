package report

import "unsafe"

// Packed makes samples of a worker's reservoir, without a copy.
func Packed(words []uint32) Samples {
	return unsafe.Slice((*Sample)(unsafe.SliceData(words)), len(words))
}

// bytes are the samples in memory, which is the wire's form on the machines that
// guestinit is for: they are all little-endian.
func (s Samples) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), sampleSize*len(s))
}
