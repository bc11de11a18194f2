package bare

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxFrames bounds the frames that a fault records.
const MaxFrames = 32

// Fault is what the fault handler of a task leaves for the spawner: which
// signal, where, and the frame-pointer chain. Signal 0 means no fault.
type Fault struct {
	_      structs.HostLayout
	Signal uint32
	Code   int32  // si_code
	Addr   uint64 // si_addr
	PC     uint64 // where the task was
	SP     uint64 // its stack pointer
	Frames uint32 // how many of Stack are set
	_      uint32
	CPUNs  int64             // CPU time of the task
	Stack  [MaxFrames]uint64 // return addresses, innermost first
}

// kernelSigaction is struct sigaction as rt_sigaction(2) wants it on 64-bit
// machines.
type kernelSigaction struct {
	_        structs.HostLayout
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Flags of include/uapi/asm-generic/signal-defs.h and, for SA_RESTORER, of
// arch/x86/include/uapi/asm/signal.h.
const (
	saSiginfo  = 0x00000004
	saOnStack  = 0x08000000
	saRestorer = 0x04000000

	sigDfl, sigIgn = 0, 1
)

// faultSignals are the signals that the CPU raises on a bug.
var faultSignals = [...]unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP}

// handlers are the addresses of the handlers; Prepare fills them.
var handlers struct{ stop, fault, threadFault, restorer uintptr }

// InstallHandlers makes the calling process task stop and die as the pipeline
// wants: SIGUSR1 sets *stop, and a fault is recorded in *fault on the alternate
// stack before the process dies of it. A write to a pipe without a reader is an
// error of the call, no death. For the first task of a process only: its
// threads call PrepareFaults alone.
func InstallHandlers(stop *uint32, fault *Fault) unix.Errno {
	t := (*TCB)(Pointer(currentTCB()))
	t.stopWord = uintptr(unsafe.Pointer(stop))
	if e := PrepareFaults(fault, false); e != 0 {
		return e
	}
	for i := range faultSignals {
		if e := sigaction(faultSignals[i], handlers.fault, saSiginfo|saOnStack); e != 0 {
			return e
		}
	}
	if e := sigaction(unix.SIGPIPE, sigIgn, 0); e != 0 {
		return e
	}
	return sigaction(unix.SIGUSR1, handlers.stop, 0)
}

// PrepareFaults gives the calling task its alternate stack and the place for
// its faults. With alone, a fault ends the task alone and not its process.
func PrepareFaults(fault *Fault, alone bool) unix.Errno {
	t := (*TCB)(Pointer(currentTCB()))
	t.fault = uintptr(unsafe.Pointer(fault))
	t.alone = 0
	if alone {
		t.alone = 1
	}
	alt := (*TCB)(unsafe.Add(unsafe.Pointer(t), unsafe.Sizeof(TCB{})))
	ss := struct {
		sp    uintptr
		flags int32
		_     int32
		size  uintptr
	}{sp: alt.stackLo, size: alt.stackHi - alt.stackLo}
	return Errno(Syscall3(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&ss)), 0, 0))
}

// UnblockFaults lets the signals of a CPU fault reach the calling task and
// leaves all others blocked, as a thread of a Go process must.
func UnblockFaults() {
	mask := ^uint64(0)
	for i := range faultSignals {
		mask &^= sigBit(faultSignals[i])
	}
	Syscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

// runtimeHandlers are the handlers that the Go runtime had for the fault
// signals, by signal number; threadFaultHandler goes on there.
var runtimeHandlers [32]uintptr

// GuardThreads puts a handler before the Go runtime's own for the fault
// signals: a fault in a task is the task's, every other goes to the runtime as
// before. Calling it again changes nothing. It stays for the life of the
// process, which must not replace these handlers meanwhile.
func GuardThreads() error {
	for _, sig := range faultSignals {
		var sa kernelSigaction
		if e := Errno(Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&sa)), 8, 0, 0)); e != 0 {
			return e
		}
		if sa.handler == handlers.threadFault {
			continue
		}
		runtimeHandlers[sig] = sa.handler
		sa.handler = handlers.threadFault
		if e := Errno(Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&sa)), 0, 8, 0, 0)); e != 0 {
			return e
		}
	}
	return nil
}

func sigaction(sig unix.Signal, handler uintptr, flags uint64) unix.Errno {
	sa := kernelSigaction{handler: handler, flags: flags, restorer: handlers.restorer}
	if handlers.restorer != 0 {
		sa.flags |= saRestorer
	}
	return Errno(Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&sa)), 0, 8, 0, 0))
}

// RestoreMask gives the task the signal mask that the spawner had before the
// clone, less the signals that the handlers of this package need.
func RestoreMask() {
	t := (*TCB)(Pointer(currentTCB()))
	mask := t.oldMask &^ sigBit(unix.SIGUSR1)
	for i := range faultSignals {
		mask &^= sigBit(faultSignals[i])
	}
	Syscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

func sigBit(s unix.Signal) uint64 { return 1 << (uint(s) - 1) }

// faultInChild runs on the alternate stack: it records the fault and lets the
// process die of the same signal, so that the wait status tells the truth; a
// task that stands alone just ends.
func faultInChild(sig, info, ctx uintptr) {
	t := (*TCB)(Pointer(currentTCB()))
	f := (*Fault)(Pointer(t.fault))
	pc, sp, fp := registers(ctx)
	f.Code = *(*int32)(Pointer(info + 8))
	f.Addr = *(*uint64)(Pointer(info + 16))
	f.PC, f.SP = pc, sp
	n := uint32(0)
	lo, hi := uint64(t.stackLo), uint64(t.stackHi)
	for n < MaxFrames && fp >= lo && fp <= hi-16 && fp&7 == 0 {
		f.Stack[n] = *(*uint64)(Pointer(uintptr(fp + 8)))
		n++
		next := *(*uint64)(Pointer(uintptr(fp)))
		if next <= fp {
			break
		}
		fp = next
	}
	f.Frames = n
	f.CPUNs = ThreadCPU()
	f.Signal = uint32(sig)
	if t.alone != 0 {
		ExitTask(128 + int(sig))
	}
	noCore := [2]uint64{} // a dump would hold the process back for seconds
	Syscall3(unix.SYS_SETRLIMIT, unix.RLIMIT_CORE, uintptr(unsafe.Pointer(&noCore)), 0)
	sigaction(unix.Signal(sig), sigDfl, 0)
	mask := uint64(0)
	Syscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	Syscall3(unix.SYS_TKILL, uintptr(GetTID()), sig, 0)
	ExitGroup(128 + int(sig))
}

//go:noescape
func currentTCB() uintptr
