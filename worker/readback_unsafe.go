package worker

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// MaxCgroupPath is how much of a cgroup's path is read back, in bytes.
const MaxCgroupPath = 256

// Got is what the kernel says a worker has, read back behind the set-up and
// before the first pass.
type Got struct {
	_            structs.HostLayout
	Valid        uint32 // 1 once all of it was read
	Policy       uint32 // SCHED_*, with SCHED_RESET_ON_FORK taken off
	Priority     uint32
	Nice         int32
	DLRuntimeNs  uint64
	DLDeadlineNs uint64
	DLPeriodNs   uint64
	MemMode      uint32 // MPOL_* mode with its flags
	UID, GID     uint32 // effective
	CgroupLen    uint32
	Comm         [16]byte
	MemNodes     [bare.MaxNodes / 64]uint64
	Affinity     CPUMask
	Cgroup       [MaxCgroupPath]byte // of the v2 hierarchy, from its root
}

// readBack asks the kernel what the worker has. What it refuses to tell stays
// zero.
func (s *Slab) readBack() {
	g := &s.Got
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr}
	bare.Syscall6(unix.SYS_SCHED_GETATTR, 0, uintptr(unsafe.Pointer(&attr)), unix.SizeofSchedAttr, 0, 0, 0)
	g.Policy, g.Priority = attr.Policy, attr.Priority
	g.DLRuntimeNs, g.DLDeadlineNs, g.DLPeriodNs = attr.Runtime, attr.Deadline, attr.Period
	g.Nice = int32(bare.Nice())
	bare.Affinity(unsafe.Pointer(&g.Affinity), unsafe.Sizeof(g.Affinity))
	mode := int32(0)
	bare.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), uintptr(unsafe.Pointer(&g.MemNodes)),
		bare.MaxNodes+1, 0, 0, 0)
	g.MemMode = uint32(mode)
	bare.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&g.Comm)), 0, 0, 0)
	g.UID = uint32(bare.Syscall3(unix.SYS_GETEUID, 0, 0, 0))
	g.GID = uint32(bare.Syscall3(unix.SYS_GETEGID, 0, 0, 0))
	g.CgroupLen = uint32(bare.ReadCgroup(unsafe.Slice(&g.Cgroup[0], len(g.Cgroup))))
	g.Valid = 1
}
