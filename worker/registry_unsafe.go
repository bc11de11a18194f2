package worker

import "unsafe"

// isTopLevel tells whether what a function value points at lies in the program's
// own image, as it does for a top-level function: what a closure or a method value
// points at lies in the heap. The linker lays code before constants and those
// before zeroed variables, and nothing of the heap lies between. A program may
// register its types before /proc is mounted, so that cannot be asked.
func isTopLevel(f func(*Slab)) bool {
	at := *(**uintptr)(unsafe.Pointer(&f)) // its first word is the address of the code
	return *at < uintptr(unsafe.Pointer(at)) && uintptr(unsafe.Pointer(at)) < uintptr(unsafe.Pointer(&registry))
}
