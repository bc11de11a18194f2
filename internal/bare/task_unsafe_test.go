package bare

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe is what a task in these tests leaves for the test.
type probe struct {
	now, cpuTime        int64
	cpu, tid            int
	runCPU, delay, runs uint64
	schedErrno          unix.Errno
	pages               [MaxNodes]uint64
	pagesErrno          unix.Errno
	migrated            uint64
	hasMigrated         bool
	mask                uint64 // signals that are blocked at birth
}

func probeInChild(arg uintptr) {
	p := (*probe)(Pointer(arg))
	Syscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, uintptr(unsafe.Pointer(&p.mask)), 8, 0, 0)
	Spin(1000)
	p.now, p.cpuTime = Now(), ThreadCPU()
	p.cpu, p.tid = CPU(), GetTID()
	p.schedErrno = ReadSchedstat(&p.runCPU, &p.delay, &p.runs)
	p.pagesErrno = ReadNumaPages(&p.pages)
	p.migrated, p.hasMigrated = ReadPagesMigrated()
	ExitGroup(42)
}

// runTask clones a task and returns its pid and wait status.
func runTask(t *testing.T, fn func(uintptr), arg uintptr) (int, unix.WaitStatus) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	Prepare()
	area, err := NewArea()
	if err != nil {
		t.Fatal(err)
	}
	defer area.Free()
	pid, err := area.Clone(&CloneArgs{Flags: unix.CLONE_CLEAR_SIGHAND, ExitSignal: uint64(unix.SIGCHLD)}, fn, arg)
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return pid, status
}

func sharedMemory(t *testing.T, size uintptr) unsafe.Pointer {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return unsafe.Pointer(&mem[0])
}

// TestTaskReadsItsWorld compares what a task reads outside the runtime with
// what the test reads inside it.
func TestTaskReadsItsWorld(t *testing.T) {
	p := (*probe)(sharedMemory(t, unsafe.Sizeof(probe{})))
	var before, after unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	pid, status := runTask(t, probeInChild, uintptr(unsafe.Pointer(p)))
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	if !status.Exited() || status.ExitStatus() != 42 {
		t.Fatalf("wait status %#x", status)
	}
	if p.now < before.Nano() || p.now > after.Nano() {
		t.Errorf("Now is %d, not within %d to %d", p.now, before.Nano(), after.Nano())
	}
	if p.cpuTime <= 0 || p.tid != pid || p.cpu < 0 || p.cpu >= 8192 {
		t.Errorf("CPU time %d, tid %d of pid %d, CPU %d", p.cpuTime, p.tid, pid, p.cpu)
	}
	if p.schedErrno != 0 || p.runCPU == 0 || p.runs == 0 {
		t.Errorf("schedstat: %v, CPU %d, runs %d", p.schedErrno, p.runCPU, p.runs)
	}
	if _, err := os.Stat("/proc/self/numa_maps"); err == nil && (p.pagesErrno != 0 || p.pages[0] == 0) {
		t.Errorf("numa_maps: %v, %d pages on node 0", p.pagesErrno, p.pages[0])
	}
	vmstat, _ := os.ReadFile("/proc/vmstat")
	_, rest, found := strings.Cut(string(vmstat), "\n"+pagesMigratedKey)
	if found != p.hasMigrated {
		t.Errorf("vmstat has numa_pages_migrated: %v, the task found it: %v", found, p.hasMigrated)
	}
	if found {
		line, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.ParseUint(line, 10, 64); err != nil || p.migrated > n {
			t.Errorf("numa_pages_migrated is %d in the task, later %q", p.migrated, line)
		}
	}
}

// TestVDSOIsUsed fails if the clock of tasks fell back to system calls on a
// machine whose kernel has a vDSO.
func TestVDSOIsUsed(t *testing.T) {
	Prepare()
	if vdso.clockGettime == 0 {
		t.Error("no vDSO clock was found; is vdso=0 on the kernel's command line?")
	}
	if vdsoCPUName != "" && vdso.getcpu == 0 {
		t.Error("no vDSO getcpu was found")
	}
}

// TestCloneRestoresTheMask checks that a task is born with every signal blocked,
// and that the caller's mask survives clones that succeed and that fail.
func TestCloneRestoresTheMask(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Sigset_t
	unix.PthreadSigmask(unix.SIG_BLOCK, nil, &before)
	p := sharedMemory(t, unsafe.Sizeof(probe{}))
	runTask(t, probeInChild, uintptr(p))
	if mask := (*probe)(p).mask | sigBit(unix.SIGKILL) | sigBit(unix.SIGSTOP); mask != ^uint64(0) {
		t.Errorf("the task was born with the signals %x unblocked", ^mask)
	}
	area, err := NewArea()
	if err != nil {
		t.Fatal(err)
	}
	defer area.Free()
	if _, err := area.Clone(&CloneArgs{Flags: 1 << 63}, probeInChild, uintptr(p)); err != unix.EINVAL {
		t.Errorf("a clone with an unknown flag gives %v", err)
	}
	unix.PthreadSigmask(unix.SIG_BLOCK, nil, &after)
	if before != after {
		t.Errorf("the mask was %x and is %x", before.Val[0], after.Val[0])
	}
}
