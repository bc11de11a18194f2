package bare

import (
	"errors"
	"fmt"
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of the parts of an Area, in bytes.
const (
	guardSize    = 4096
	stackSize    = 64 << 10
	altStackSize = 32 << 10 // a signal frame with AVX-512 and AMX state is under 12 KiB
	tcbSize      = 8192

	// AreaSize is the size of an area in bytes.
	AreaSize = guardSize + stackSize + altStackSize + tcbSize

	// stackReserve is the room below which Go prologues see the stack as full:
	// the runtime's own 928 bytes for nosplit chains, and what the vDSO uses.
	stackReserve = 4096

	// tlsRoom is the room below the thread pointer; the linker puts the g slot
	// of amd64 there (8 bytes below it without cgo).
	tlsRoom = 512
)

// TCB is what a task finds through its thread pointer. It begins like
// runtime.g, whose head (stack.lo, stack.hi, stackguard0, stackguard1) compiled
// prologues read; the rest of g stays zero, so that any way into the runtime
// ends in a nil pointer fault that the fault handler reports.
type TCB struct {
	_           structs.HostLayout
	stackLo     uintptr
	stackHi     uintptr
	stackGuard0 uintptr
	stackGuard1 uintptr
	restOfG     [1024]byte

	owner    uintptr // the task's first TCB; a handler's g points back through it
	oldMask  uint64  // signal mask of the spawner before the clone
	stopWord uintptr // *uint32 that the stop handler sets
	fault    uintptr // *Fault that the fault handler fills
	alone    uintptr // 1: a fault ends the task, not its process
	tls      [tlsRoom]byte
	tp       [64]byte // the thread pointer points here
}

// CloneArgs is struct clone_args of include/uapi/linux/sched.h (version 2,
// Linux 5.7).
type CloneArgs struct {
	_          structs.HostLayout
	Flags      uint64
	PidFD      uint64
	ChildTID   uint64
	ParentTID  uint64
	ExitSignal uint64
	Stack      uint64
	StackSize  uint64
	TLS        uint64
	SetTID     uint64
	SetTIDSize uint64
	Cgroup     uint64
}

// Area is the memory that a task is born on: guard page, stack, alternate stack
// and two TCBs. Forked tasks can share one, since each has its own copy.
type Area struct {
	mem []byte
}

// NewArea maps an area. The mapping is private; only pages that a task touches
// cost memory.
func NewArea() (*Area, error) { return NewAreas(1) }

// NewAreas maps n areas side by side, AreaSize apart, as one Area.
func NewAreas(n int) (*Area, error) {
	mem, err := unix.Mmap(-1, 0, n*AreaSize,
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d worker stacks of %d bytes: %w", n, stackSize, err)
	}
	a := &Area{mem: mem}
	for i := range n {
		if err := a.init(mem[i*AreaSize : (i+1)*AreaSize]); err != nil {
			return nil, errors.Join(err, a.Free())
		}
	}
	return a, nil
}

func (a *Area) init(mem []byte) error {
	if err := unix.Mprotect(mem[:guardSize], unix.PROT_NONE); err != nil {
		return fmt.Errorf("protect guard page of worker stack (see vm.max_map_count): %w", err)
	}
	base := uintptr(unsafe.Pointer(&mem[0]))
	stack, alt := base+guardSize, base+guardSize+stackSize
	tcb := alt + altStackSize
	a.initTCB(tcb, stack, stackSize, tcb)
	a.initTCB(tcb+unsafe.Sizeof(TCB{}), alt, altStackSize, tcb)
	return nil
}

func (a *Area) initTCB(at, stack, size, owner uintptr) {
	t := (*TCB)(Pointer(at))
	t.stackLo, t.stackHi = stack, stack+size
	t.stackGuard0, t.stackGuard1 = stack+stackReserve, stack+stackReserve
	t.owner = owner
}

// Range is where the area lies, for those who exclude memory from a fork.
func (a *Area) Range() (lo, hi uintptr) { return a.Address(), a.Address() + uintptr(len(a.mem)) }

// Free unmaps the area. No task may run on it any more.
func (a *Area) Free() error {
	if a.mem == nil {
		return nil
	}
	mem := a.mem
	a.mem = nil
	return unix.Munmap(mem)
}

// Address is where the area lies, for CloneAt.
func (a *Area) Address() uintptr { return uintptr(unsafe.Pointer(&a.mem[0])) }

// Clone makes a task that runs fn(arg) on the area and returns its pid in the
// caller's namespace. It fills Stack, StackSize and TLS of args and adds
// CLONE_SETTLS. fn must be a top-level function that obeys the rules of this
// package and ends the task with ExitGroup or ExitTask; it must not return.
// All signals are blocked in the new task; RestoreMask gives it the caller's
// mask. The error is the errno of clone3(2).
func (a *Area) Clone(args *CloneArgs, fn func(arg uintptr), arg uintptr) (pid int, err error) {
	pid, errno := CloneAt(a.Address(), args, Code(fn), arg)
	runtime.KeepAlive(args)
	if errno != 0 {
		return 0, errno
	}
	return pid, nil
}

// CloneThread makes a thread of the calling process that runs fn(arg) on the
// i-th of the areas. args come from ThreadArgs.
func (a *Area) CloneThread(i int, args *CloneArgs, fn func(arg uintptr), arg uintptr) (tid int, err error) {
	tid, errno := CloneAt(a.Address()+uintptr(i)*AreaSize, args, Code(fn), arg)
	runtime.KeepAlive(args)
	if errno != 0 {
		return 0, errno
	}
	return tid, nil
}

// Code is the function value of fn as a number, which tasks can hold and pass
// to CloneAt. fn must be a top-level function.
func Code(fn func(arg uintptr)) uintptr { return *(*uintptr)(unsafe.Pointer(&fn)) }

// ThreadArgs is the clone3 request for a task that is a thread of the calling
// process. The kernel keeps *tid at the thread's id while it lives and clears it,
// with a futex wake, when it has ended.
func ThreadArgs(tid *uint32) CloneArgs {
	addr := uint64(uintptr(unsafe.Pointer(tid)))
	return CloneArgs{
		Flags: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
			unix.CLONE_SYSVSEM | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID,
		ParentTID: addr,
		ChildTID:  addr,
	}
}

// CloneAt is Clone for callers that may be tasks themselves: the area is the
// memory at an address, fn is what Code made of a function.
func CloneAt(area uintptr, args *CloneArgs, fn, arg uintptr) (pid int, errno unix.Errno) {
	tcb := area + guardSize + stackSize + altStackSize
	args.Flags |= unix.CLONE_SETTLS
	args.Stack = uint64(area + guardSize)
	args.StackSize = stackSize
	args.TLS = uint64(tcb + tlsOffset)
	r := cloneTask(args, unsafe.Sizeof(*args), fn, arg, tcb)
	if e := Errno(r); e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Pointer turns an address of memory outside the Go heap into a pointer.
func Pointer(addr uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}

// Address is the address of a byte in a mapping.
func Address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

//go:noescape
func cloneTask(args *CloneArgs, size uintptr, fn uintptr, arg uintptr, tcb uintptr) uintptr

func codeAddresses() (stop, fault, threadFault, restorer uintptr)
