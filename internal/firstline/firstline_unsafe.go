// Package firstline says that /init runs, before anything else of the program
// does: the Go runtime initialises packages in the order of their import paths
// as soon as what they import is, so a package that imports next to nothing
// comes before the tables of the libraries. In a guest those take a quarter of
// the start. It may import runtime and unsafe: syscall and time come late.
package firstline

import (
	"runtime"
	"unsafe"
)

// Release is the version of a release build; the linker sets it.
var Release string

// PID1 tells whether this process is a machine's init, and not that of a container.
var PID1 = isInit()

// Started is CLOCK_BOOTTIME in nanoseconds when PID 1 said its first line; 0 in any
// other process, which says nothing.
var Started = announce()

// syscall3 is a system call: its result, or an error number negated.
func syscall3(number, a uintptr, b unsafe.Pointer, c uintptr) int

// syscall4 is one with another pointer.
func syscall4(number, a uintptr, b, c unsafe.Pointer, d uintptr) int

// isInit looks at the PID namespace as well: that of a machine has a number of its
// own (PROC_PID_INIT_INO of include/linux/proc_ns.h). A machine's init may have no
// /proc yet, a container's has one.
func isInit() bool {
	if syscall3(getpid, 0, nil, 0) != 1 {
		return false
	}
	const atFDCWD = ^uintptr(99) // include/uapi/linux/fcntl.h
	path, link := []byte("/proc/self/ns/pid\x00"), [32]byte{}
	n := syscall4(readlinkat, atFDCWD, unsafe.Pointer(&path[0]), unsafe.Pointer(&link), uintptr(len(link)))
	return n < 0 || string(link[:n]) == "pid:[4026531836]"
}

func announce() int64 {
	if !PID1 {
		return 0
	}
	release := Release
	if release == "" {
		release = "devel"
	}
	line := []byte("guestinit: start " + release + " " + runtime.Version() + " " + runtime.GOARCH + level + "\n")
	syscall3(write, 1, unsafe.Pointer(&line[0]), uintptr(len(line)))
	const clockBoottime = 7 // include/uapi/linux/time.h
	var ts [2]int64
	syscall3(clockGettime, clockBoottime, unsafe.Pointer(&ts), 0)
	return ts[0]*1e9 + ts[1]
}
