package worker

import (
	"math"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// gateTimeoutNs bounds the wait at the start gate, from the last arrival there.
const gateTimeoutNs = 30e9

// Exit statuses of a worker process.
const (
	ExitCommitted = 0
	ExitGate      = 1   // the gate did not open in time
	ExitMember    = 1   // a container could not start one of its workers
	ExitBirth     = 70  // a step of its birth failed
	ExitExec      = 127 // an exec worker could not become its program
)

// ProcessMain is the life of a forked worker, from its birth to its end. arg is
// the address of its Slab. It is the fn of bare.Area.Clone and never returns.
func ProcessMain(arg uintptr) {
	s := SlabAt(arg)
	beginProcess(s.SpawnerPID, &s.Stop, &s.Fault)
	if closeForeignFDs(&s.FDs, s.NumFDs) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	s.TID = int32(bare.GetTID())
	if !s.waitGate() {
		bare.ExitGroup(ExitGate)
	}
	s.run()
	bare.ExitGroup(ExitCommitted)
}

// ThreadMain is the life of a worker that is a thread of the spawner's process.
// arg is the address of its Slab. Its signals stay blocked, but for faults,
// which end the thread alone.
func ThreadMain(arg uintptr) {
	s := SlabAt(arg)
	if bare.PrepareFaults(&s.Fault, true) != 0 {
		s.exit(ExitBirth)
	}
	bare.UnblockFaults()
	s.TID = int32(bare.GetTID())
	if !s.waitGate() {
		s.exit(ExitGate)
	}
	s.run()
	s.exit(ExitCommitted)
}

// exit ends the worker: its process, or the thread alone. A thread has no exit
// status that anybody could wait for, so the slab keeps it.
func (s *Slab) exit(code int) {
	s.ExitCPUNs = bare.ThreadCPU()
	s.ExitWord = uint32(code) + 1
	if s.Mode == ModeProcess {
		bare.ExitGroup(code)
	}
	bare.ExitTask(code)
}

// MemberMain is the life of a worker that is a thread of a container. It begins
// its work when all members live.
func MemberMain(arg uintptr) {
	s := SlabAt(arg)
	c := ContainerAt(s.Container)
	if bare.PrepareFaults(&s.Fault, false) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	bare.UnblockFaults()
	s.TID = int32(bare.GetTID())
	atomic.StoreUint32(&s.State, StateAtGate)
	for atomic.LoadUint32(&c.Gate) == 0 {
		bare.FutexWait(&c.Gate, 0, pollNs)
	}
	s.run()
	s.exit(ExitCommitted)
}

// ContainerMain is the life of a container's leader: it becomes what the
// container is to be, waits at the gate, starts all workers as threads of itself
// and ends with the last of them. arg is the address of the Container.
func ContainerMain(arg uintptr) {
	c := ContainerAt(arg)
	beginProcess(c.SpawnerPID, &c.Stop, &c.Fault)
	bare.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&c.Comm)), 0, 0, 0)
	if c.closeFDs() != 0 {
		bare.ExitGroup(ExitBirth)
	}
	if !c.dropPrivileges() {
		bare.ExitGroup(ExitBirth)
	}
	shared := SharedAt(c.Shared)
	atomic.StoreUint32(&c.State, StateAtGate)
	if !shared.waitGate(c.Members) {
		bare.ExitGroup(ExitGate)
	}
	for i := uintptr(0); i < uintptr(c.Members); i++ {
		if errno := c.startMember(i); errno != 0 {
			c.Errno = uint32(errno)
			bare.ExitGroup(ExitMember)
		}
		atomic.AddUint32(&c.Alive, 1)
	}
	atomic.StoreUint32(&c.State, StateRunning)
	atomic.StoreUint32(&c.Gate, 1)
	bare.FutexWake(&c.Gate, math.MaxInt32)
	for i := uintptr(0); i < uintptr(c.Members); i++ {
		c.join(i)
	}
	bare.ExitGroup(ExitCommitted)
}

// beginProcess makes the first steps of every process of the pipeline: tied to
// its spawner, leader of its own group, with handlers, and only then with its
// signals unblocked, so that a stop that came early is delivered.
func beginProcess(spawner int32, stop *uint32, fault *bare.Fault) {
	guardOrphan(spawner)
	if bare.Setpgid(0, 0) != 0 || bare.InstallHandlers(stop, fault) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	bare.RestoreMask()
}

// member is the slab of member i.
func (c *Container) member(i uintptr) *Slab { return SlabAt(c.FirstSlab + i*c.SlabStride) }

// startMember clones member i as a thread of the calling leader.
func (c *Container) startMember(i uintptr) unix.Errno {
	s := c.member(i)
	args := bare.ThreadArgs(&s.LiveTID)
	_, errno := bare.CloneAt(c.Areas+i*bare.AreaSize, &args, c.Entry, c.FirstSlab+i*c.SlabStride)
	return errno
}

// join waits until member i has ended.
func (c *Container) join(i uintptr) {
	s := c.member(i)
	for {
		tid := atomic.LoadUint32(&s.LiveTID)
		if tid == 0 {
			return
		}
		bare.FutexWait(&s.LiveTID, tid, pollNs)
	}
}

// dropPrivileges changes group, then user, of the leader before it has threads,
// and makes the tie to the spawner again. false if a change is refused: a
// container must not run with more rights than it was given.
func (c *Container) dropPrivileges() bool {
	if c.Steps&(1<<StepGID) != 0 && setIDs(unix.SYS_SETRESGID, uintptr(c.GID)) != 0 {
		return false
	}
	if c.Steps&(1<<StepUID) != 0 && setIDs(unix.SYS_SETRESUID, uintptr(c.UID)) != 0 {
		return false
	}
	guardOrphan(c.SpawnerPID)
	return true
}

// closeFDs closes every descriptor that no member owns. The members' lists are
// ascending from one member to the next, since their pipes were made in order.
func (c *Container) closeFDs() unix.Errno {
	var keep fdSweep
	if c.NumFDs == 0 {
		return bare.CloseRange(0, math.MaxUint32, unix.CLOSE_RANGE_UNSHARE)
	}
	highest := int32(-1)
	for i := uintptr(0); i < uintptr(c.Members); i++ {
		s := c.member(i)
		for n := uint32(0); n < s.NumFDs && n < MaxOwnedFDs; n++ {
			highest = max(highest, s.FDs[n])
		}
	}
	if errno := keep.begin(highest); errno != 0 {
		return errno
	}
	for fd := int32(0); fd <= highest; fd++ {
		if c.owns(fd) {
			keep.keep(fd)
		}
	}
	return 0
}

// owns tells whether a member owns the descriptor.
func (c *Container) owns(fd int32) bool {
	for i := uintptr(0); i < uintptr(c.Members); i++ {
		s := c.member(i)
		for n := uint32(0); n < s.NumFDs && n < MaxOwnedFDs; n++ {
			if s.FDs[n] == fd {
				return true
			}
		}
	}
	return false
}

// guardOrphan ties the life of the calling process to its spawner's: the kernel
// kills it when the spawner's thread ends, and if that happened before the tie
// was made, it ends itself. The comparison with the spawner's pid is right under
// a subreaper, and for a spawner that is PID 1: a parent pid of 1 is then the
// living spawner.
func guardOrphan(spawner int32) {
	if bare.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) != 0 {
		bare.ExitGroup(ExitBirth)
	}
	if bare.GetPPID() != int(spawner) {
		bare.ExitGroup(0)
	}
}

// fdSweep closes descriptors around those that are kept. The table is still the
// spawner's at first: begin takes a copy of the part that is needed, and so
// leaves the spawner's alone.
type fdSweep struct{ from int32 }

// begin closes everything above the highest descriptor that will be kept.
func (k *fdSweep) begin(highest int32) unix.Errno {
	return bare.CloseRange(uint(highest+1), math.MaxUint32, unix.CLOSE_RANGE_UNSHARE)
}

// keep closes what lies between the descriptor and the one kept before it.
func (k *fdSweep) keep(fd int32) {
	if fd > k.from {
		bare.CloseRange(uint(k.from), uint(fd-1), 0)
	}
	k.from = fd + 1
}

// closeForeignFDs closes every descriptor but the n first of fds, which ascend;
// standard input and outputs too.
func closeForeignFDs(fds *[MaxOwnedFDs]int32, n uint32) unix.Errno {
	n = min(n, MaxOwnedFDs)
	highest := int32(-1)
	if n > 0 {
		highest = fds[n-1]
	}
	var k fdSweep
	if errno := k.begin(highest); errno != 0 {
		return errno
	}
	for i := uint32(0); i < n; i++ {
		k.keep(fds[i])
	}
	return 0
}

// waitGate waits until the spawner opens the gate; false 30 s after the last
// worker came there.
func (s *Slab) waitGate() bool {
	atomic.StoreUint32(&s.State, StateAtGate)
	return SharedAt(s.Shared).waitGate(1)
}

// waitGate counts n workers in at the gate and waits until it opens. As long as
// others still arrive the spawner is busy with births, which for thousands can
// take longer than the bound on the wait.
func (b *Shared) waitGate(n uint32) bool {
	atomic.StoreInt64(&b.BornNs, bare.Now())
	b.count(&b.BornCount, n)
	for atomic.LoadUint32(&b.Gate) == 0 {
		left := atomic.LoadInt64(&b.BornNs) + gateTimeoutNs - bare.Now()
		if left <= 0 {
			return false
		}
		bare.FutexWait(&b.Gate, 0, left)
	}
	return true
}

// count counts n workers in, and wakes the spawner if it waits for no more.
func (b *Shared) count(word *uint32, n uint32) {
	now := atomic.AddUint32(word, n)
	if enough := atomic.LoadUint32(&b.Awaited); enough != 0 && now >= enough {
		bare.FutexWake(word, 1)
	}
}

// run is what every worker does behind the gate, process or thread.
func (s *Slab) run() {
	atomic.StoreUint32(&s.State, StateSetup)
	s.inheritSlack()
	s.setUp()
	s.readBack()
	s.begin()
	if n := uint32(len(Types)); s.Type < n {
		Types[s.Type].loop(s)
	} else if s.Type-n < MaxRegistered {
		registry.rows[s.Type-n].loop(s)
	}
	s.end()
}

// inheritSlack gives the worker the timer slack of its spawner's process. That of
// the thread that cloned it is 0 where the thread is a real-time one (Linux 6.12),
// and a clone takes it over with everything else.
func (s *Slab) inheritSlack() {
	if slack := SharedAt(s.Shared).SlackNs; slack != 0 {
		bare.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0)
	}
}

// setUp makes the steps that the Setup asks for, in their fixed order. A step
// that fails leaves its errno and does not stop the worker.
func (s *Slab) setUp() {
	u := &s.Setup
	for step := uint32(0); step <= StepNUMANode; step++ {
		if u.Steps&(1<<step) == 0 {
			continue
		}
		s.SoftErrno[step] = uint32(s.setUpStep(step))
	}
}

func (s *Slab) setUpStep(step uint32) unix.Errno {
	u := &s.Setup
	switch step {
	case StepAffinity:
		return setAffinity(&u.Affinity)
	case StepSched:
		return u.setScheduler()
	case StepMemPolicy:
		return bare.Errno(bare.Syscall3(unix.SYS_SET_MEMPOLICY, uintptr(u.MemMode),
			uintptr(unsafe.Pointer(&u.MemNodes)), uintptr(u.MemMaxNode)))
	case StepNice:
		return bare.Errno(bare.Syscall3(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(u.Nice)))
	case StepComm:
		return bare.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&u.Comm)), 0, 0, 0)
	case StepGID:
		id := uintptr(u.GID)
		return s.changeID(unix.SYS_SETRESGID, id)
	case StepUID:
		id := uintptr(u.UID)
		return s.changeID(unix.SYS_SETRESUID, id)
	case StepNUMANode:
		return setAffinity(&u.NUMANodeMask)
	}
	return 0
}

// changeID sets the three ids of one kind. The kernel forgets the parent-death
// signal on a change of credentials, so a process makes the tie again.
func (s *Slab) changeID(nr, id uintptr) unix.Errno {
	errno := setIDs(nr, id)
	if s.Mode == ModeProcess {
		guardOrphan(s.SpawnerPID)
	}
	return errno
}

// setIDs makes setresgid(2) or setresuid(2) with one id thrice. It changes the
// calling task alone.
func setIDs(nr, id uintptr) unix.Errno { return bare.Errno(bare.Syscall3(nr, id, id, id)) }

func setAffinity(mask *CPUMask) unix.Errno {
	return bare.Errno(bare.Syscall3(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*mask),
		uintptr(unsafe.Pointer(mask))))
}

// setScheduler applies the policy to the calling task. sched_setscheduler(2)
// keeps the nice value; deadline and ext need sched_setattr(2).
func (u *Setup) setScheduler() unix.Errno {
	if u.Policy != unix.SCHED_DEADLINE && u.Policy != schedExt {
		prio := int32(u.Priority)
		return bare.Errno(bare.Syscall3(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(u.Policy),
			uintptr(unsafe.Pointer(&prio))))
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: u.Policy}
	if u.Policy == unix.SCHED_DEADLINE {
		attr.Runtime, attr.Deadline, attr.Period = u.DLRuntimeNs, u.DLDeadlineNs, u.DLPeriodNs
	}
	return bare.Errno(bare.Syscall3(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&attr)), 0))
}

const schedExt = 7 // SCHED_EXT of include/uapi/linux/sched.h, Linux 6.12
