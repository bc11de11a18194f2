package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// vdso holds the addresses of the vDSO functions; 0 where the kernel offers
// none, and the system call serves.
var vdso struct{ clockGettime, getcpu uintptr }

// Now is CLOCK_MONOTONIC in nanoseconds, through the vDSO.
func Now() int64 { return clock(unix.CLOCK_MONOTONIC) }

// ThreadCPU is CLOCK_THREAD_CPUTIME_ID in nanoseconds: the CPU time of the task.
func ThreadCPU() int64 { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

func clock(id uintptr) int64 {
	var ts unix.Timespec
	if vdso.clockGettime != 0 {
		callC(vdso.clockGettime, id, uintptr(unsafe.Pointer(&ts)), 0)
	} else {
		Syscall3(unix.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0)
	}
	return ts.Sec*1e9 + ts.Nsec
}

// CPU is the CPU that the task runs on: getcpu(2), through the vDSO where it is.
func CPU() int {
	var cpu uint32
	if vdso.getcpu != 0 {
		callC(vdso.getcpu, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	} else {
		Syscall3(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	}
	return int(cpu)
}

// SleepUntil sleeps until CLOCK_MONOTONIC reaches deadline (nanoseconds):
// clock_nanosleep(2) with TIMER_ABSTIME. EINTR means a signal came first.
func SleepUntil(deadline int64) unix.Errno {
	ts := timespec(deadline)
	return Errno(Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME,
		uintptr(unsafe.Pointer(&ts)), 0, 0, 0))
}
