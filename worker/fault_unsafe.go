package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// The kinds of fault_injection, in the order of faultKinds.
const (
	faultExit = iota
	faultKill
	faultSegv
	faultHang
	faultStop
	faultPanic
	faultOverflow
)

var faultKinds = []string{"exit", "sigkill", "sigsegv", "hang", "sigstop", "panic", "stack_overflow"}

// faultInjection works for a while and then fails in the way its kind says.
func faultInjection(s *Slab) {
	kind, code := s.Params[0], int(s.Params[2])
	for end := bare.Now() + int64(s.Params[1]); bare.Now() < end; {
		if s.Stopped() {
			return
		}
		s.spin(spinUnits)
		s.pass()
	}
	switch kind {
	case faultExit:
		s.exit(code)
	case faultKill:
		s.raise(unix.SIGKILL)
	case faultStop:
		s.raise(unix.SIGSTOP)
	case faultSegv:
		*(*uint64)(bare.Pointer(uintptr(8))) = uint64(code)
	case faultPanic:
		s.Params[uint64(code)|1<<32]++
	case faultOverflow:
		s.WorkUnits = overflow(s.WorkUnits)
	}
	for kind == faultHang {
		bare.Spin(spinUnits)
	}
}

// raise sends a signal to the worker. One to a thread would hit all of the
// spawner, so a thread only notes that it may not.
func (s *Slab) raise(sig unix.Signal) {
	if s.Mode == ModeThread {
		s.soft(unix.EPERM)
		return
	}
	bare.Syscall3(unix.SYS_TKILL, uintptr(s.TID), uintptr(sig), 0)
}

//go:noinline
func overflow(n uint64) uint64 { return n + overflow(n+1) }
