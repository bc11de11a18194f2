// Package firstline says that /init runs, before anything else of the program
// does: the Go runtime initialises packages in the order of their import paths
// as soon as what they import is, so a package that imports next to nothing
// comes before the tables of the libraries. In a guest those take a quarter of
// the start. It may import syscall and runtime, nothing of ours.
package firstline

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// Release is the version of a release build; the linker sets it.
var Release string

// PID1 tells whether this process is a machine's init, and not that of a container.
var PID1 = isInit()

// Started is CLOCK_BOOTTIME when PID 1 said its first line; 0 in any other
// process, which says nothing.
var Started = announce()

// isInit looks at the PID namespace as well: that of a machine has a number of its
// own (PROC_PID_INIT_INO of include/linux/proc_ns.h). A machine's init may have no
// /proc yet, a container's has one.
func isInit() bool {
	if syscall.Getpid() != 1 {
		return false
	}
	var link [32]byte
	n, err := syscall.Readlink("/proc/self/ns/pid", link[:])
	return err != nil || string(link[:n]) == "pid:[4026531836]"
}

func announce() time.Duration {
	if !PID1 {
		return 0
	}
	release := Release
	if release == "" {
		release = "devel"
	}
	syscall.Write(1, []byte("guestinit: start "+release+" "+runtime.Version()+" "+runtime.GOARCH+level+"\n"))
	const clockBoottime = 7 // include/uapi/linux/time.h
	var ts syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}
