package worker

import "golang.org/x/sys/unix"

// Reasons and remedies of the modes that types refuse.
const (
	refuseForkFromThreads = "a fork of a process with several threads copies locks that the others hold; use clone_mode fork"
	refuseMoveOfThreads   = "a write to cgroup.procs moves the whole process, the other workers and their spawner too; use clone_mode fork"
	refuseSigchld         = "it forks and changes what SIGCHLD does to the whole process; use clone_mode fork"
	refuseExec            = "a program replaces the whole process that it is started in, and not one thread; use clone_mode fork without pcomm"
	refuseOwnEpoll        = "the workers are the threads of one event loop and share its descriptor table; use clone_mode thread"
)

// Types lists the work types, by family; All has those that a program registered
// too.
var Types = []Type{
	{
		Name: "spin_wait", Family: "cpu",
		Summary: "spin 1024 pauses; measures CPU time given, gaps and migrations",
		loop:    spinWait,
	},
	{
		Name: "yield_heavy", Family: "cpu",
		Summary: "call sched_yield in a loop; measures the cost of the pick path",
		loop:    yieldHeavy,
	},
	{
		Name: "mixed", Family: "cpu",
		Summary: "spin 1024 pauses, then sched_yield",
		loop:    mixed,
	},
	{
		Name: "bursty", Family: "cpu",
		Summary: "spin for burst_duration, sleep for sleep_duration; wake latency is the whole sleep",
		Params: []Param{
			{Name: "burst_duration", Kind: Duration, Default: 50 * msec, Min: 1 * usec, Max: maxSpan, Summary: "spinning per pass"},
			{Name: "sleep_duration", Kind: Duration, Default: 100 * msec, Min: 1 * usec, Max: maxSpan, Summary: "sleeping per pass"},
		},
		Wake: true, loop: bursty,
	},
	{
		Name: "idle_churn", Family: "cpu",
		Summary: "short bursts and sleeps, so that CPUs go idle and come back; wake latency is how much later than asked a sleep ended",
		Params: []Param{
			{Name: "burst_duration", Kind: Duration, Default: 1 * msec, Min: 1 * usec, Max: maxSpan, Summary: "spinning per pass"},
			{Name: "sleep_duration", Kind: Duration, Default: 5 * msec, Min: 1 * usec, Max: maxSpan, Summary: "sleeping per pass"},
			{Name: "precise_timing", Kind: Bool, Max: 1, Summary: "a timer slack of 1ns instead of the 50µs that are the kernel's default"},
		},
		Wake: true, loop: idleChurn,
	},
	{
		Name: "sequence", Family: "cpu",
		Summary: "a list of phases, around and around; wake latency is each sleep and yield, iteration cost 1024 steps of an alu_hot phase",
		Params: []Param{
			{Name: "width", Kind: Enum, Values: aluWidths, Default: aluWidest, Max: aluWidest, Summary: "of alu_hot phases, as of alu_hot"},
			{Name: "phases", Kind: Phases, Min: 1 * usec, Max: maxSpan, Values: phaseNames, Summary: "what to do for how long, in order: at most 8 of {spin: 10ms}",
				Phases: []uint64{phaseSpin<<phaseShift | 10*msec, phaseSleep<<phaseShift | 5*msec,
					phaseYield<<phaseShift | 2*msec, phaseIO<<phaseShift | 5*msec, phaseALU<<phaseShift | 5*msec}},
		},
		Resource: ScratchFile,
		Wake:     true, Cost: true, loop: sequence,
	},
	{
		Name: "alu_hot", Family: "cpu",
		Summary: "multiply and add in four independent chains, in vector registers of the width; iteration cost is 1024 steps",
		Params: []Param{
			{Name: "width", Kind: Enum, Values: aluWidths, Default: aluWidest, Max: aluWidest, Summary: "of the registers; the widest that the CPU has if it lacks this one"},
		},
		Cost: true, loop: aluHot,
	},
	{
		Name: "smt_sibling_spin", Family: "cpu",
		Summary:   "pairs that spin, to be put on the two threads of a core; iteration cost is 1024 pauses",
		GroupSize: pairs,
		Cost:      true, loop: smtSiblingSpin,
	},
	{
		Name: "ipc_variance", Family: "cpu",
		Summary: "alternate between multiplying in registers and random access to 512 KiB; iteration cost is a whole pass",
		Params: []Param{
			{Name: "hot_iters", Kind: Count, Default: 100_000, Min: 1, Max: maxIters, Summary: "multiplications at a time"},
			{Name: "cold_iters", Kind: Count, Default: 1024, Min: 1, Max: maxIters, Summary: "memory accesses at a time"},
			{Name: "period_iters", Kind: Count, Default: 64, Min: 1, Max: maxIters, Summary: "alternations per pass"},
		},
		Cost: true, loop: ipcVariance,
	},
	{
		Name: "timer_latency", Family: "timer",
		Summary: "sleep to absolute deadlines, interval apart; timer latency is how late each wake-up was",
		Params: []Param{
			{Name: "interval", Kind: Duration, Default: 1 * msec, Min: 1 * usec, Max: maxSpan, Summary: "between two deadlines"},
			{Name: "skip_missed", Kind: Bool, Max: 1, Summary: "skip deadlines that passed during a late wake-up, as cyclictest does, so that a stall is one late wake-up; else each of them is late"},
		},
		Timer: true, loop: timerLatency,
	},
	{
		Name: "io_sync_write", Family: "io",
		Summary: "write 16 blocks of 4 KiB with O_SYNC, then fdatasync; wake latency is the fdatasync",
		Params: []Param{
			{Name: "path", Kind: Text, Summary: "a directory for a file of each worker, a file to overwrite, or a disk that is not mounted, such as /dev/vda; empty is the temporary directory"},
			{Name: "file_kib", Kind: Count, Default: 16384, Min: 64, Max: maxKiB, Summary: "size of each worker's own file"},
		},
		Resource: BackingFile, Open: unix.O_SYNC,
		Wake: true, loop: ioSyncWrite,
	},
	{
		Name: "io_rand_read", Family: "io",
		Summary: "read random blocks of 4 KiB with O_DIRECT; wake latency is each read",
		Params: []Param{
			{Name: "path", Kind: Text, Summary: "as of io_sync_write"},
			{Name: "file_kib", Kind: Count, Default: 16384, Min: 64, Max: maxKiB, Summary: "size of each worker's own file"},
		},
		Resource: BackingFile, Open: unix.O_DIRECT,
		Wake: true, loop: ioRandRead,
	},
	{
		Name: "io_convoy", Family: "io",
		Summary: "write a block in order, read one at random, fdatasync every 16 passes, with O_DIRECT; wake latency is all of a pass",
		Params: []Param{
			{Name: "path", Kind: Text, Summary: "as of io_sync_write"},
			{Name: "file_kib", Kind: Count, Default: 16384, Min: 64, Max: maxKiB, Summary: "size of each worker's own file"},
		},
		Resource: BackingFile, Open: unix.O_DIRECT,
		Wake: true, loop: ioConvoy,
	},
	{
		Name: "pipe_io", Family: "io",
		Summary: "pairs that spin and exchange one byte over two pipes; wake latency is the wait for the partner's byte",
		Params: []Param{
			{Name: "burst_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses before each exchange"},
		},
		GroupSize: pairs, Resource: PipePair,
		Wake: true, loop: pipeIO,
	},
	{
		Name: "epoll_storm", Family: "io",
		Summary: "producers ring an eventfd, consumers wait for it on one epoll instance; wake latency is a consumer's wait that brought an event",
		Params: []Param{
			{Name: "producers", Kind: Count, Default: 1, Min: 1, Max: maxSet, Summary: "workers that ring"},
			{Name: "consumers", Kind: Count, Default: 2, Min: 1, Max: maxSet, Summary: "workers that wait"},
			{Name: "events_per_burst", Kind: Count, Default: 32, Min: 1, Max: maxIters, Summary: "rings before a producer yields"},
		},
		GroupSize: firstTwo, Resource: EventPoll,
		Wake: true, Wakes: notProducer, RefuseFork: refuseOwnEpoll, loop: epollStorm,
	},
	{
		Name: "cache_pressure", Family: "memory",
		Summary: "read, increment and write bytes of a private buffer, stride apart",
		Params: []Param{
			{Name: "size_kib", Kind: Count, Default: 32, Min: 1, Max: maxKiB, Summary: "of the buffer"},
			{Name: "stride", Kind: Count, Default: 64, Min: 1, Max: 1 << 30, Summary: "bytes from one access to the next"},
		},
		loop: cachePressure,
	},
	{
		Name: "cache_yield", Family: "memory",
		Summary: "as cache_pressure, with a sched_yield after 1024 accesses; wake latency is the yield",
		Params: []Param{
			{Name: "size_kib", Kind: Count, Default: 32, Min: 1, Max: maxKiB, Summary: "of the buffer"},
			{Name: "stride", Kind: Count, Default: 64, Min: 1, Max: 1 << 30, Summary: "bytes from one access to the next"},
		},
		Wake: true, loop: cacheYield,
	},
	{
		Name: "cache_pipe", Family: "memory",
		Summary: "pairs that work on a private buffer and exchange one byte over two pipes; wake latency is the wait for the partner's byte",
		Params: []Param{
			{Name: "size_kib", Kind: Count, Default: 32, Min: 1, Max: maxKiB, Summary: "of the buffer"},
			{Name: "burst_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "accesses before each exchange, 64 bytes apart"},
		},
		GroupSize: pairs, Resource: PipePair,
		Wake: true, loop: cachePipe,
	},
	{
		Name: "page_fault_churn", Family: "memory",
		Summary: "fault random small pages in, then give all of them back",
		Params: []Param{
			{Name: "region_kib", Kind: Count, Default: 4096, Min: 4, Max: maxKiB, Summary: "memory that the pages are in"},
			{Name: "touches_per_cycle", Kind: Count, Default: 256, Min: 1, Max: maxIters, Summary: "pages touched per pass"},
			{Name: "spin_iters", Kind: Count, Default: 64, Max: maxIters, Summary: "pauses per pass"},
		},
		loop: pageFaultChurn,
	},
	{
		Name: "numa_working_set_sweep", Family: "memory",
		Summary: "write every page of a region, bound to the next of the target nodes on each pass; wake latency is the sleep after it",
		Params: []Param{
			{Name: "region_kib", Kind: Count, Default: 4096, Min: 4, Max: maxKiB, Summary: "of the region"},
			{Name: "sweep_period", Kind: Duration, Default: 100 * msec, Max: maxSpan, Summary: "sleeping after each pass"},
			{Name: "target_nodes", Kind: Nodes, Max: 1<<64 - 1, Summary: "NUMA nodes to bind to, such as 0-1; empty binds to none"},
		},
		Wake: true, loop: numaWorkingSetSweep,
	},
	{
		Name: "numa_migration_churn", Family: "memory",
		Summary: "move to the CPUs of the next NUMA node, then sleep",
		Params: []Param{
			{Name: "period", Kind: Duration, Default: 100 * msec, Min: 1 * usec, Max: maxSpan, Summary: "sleeping after each move"},
		},
		Resource: NodeCPUs, loop: numaMigrationChurn,
	},
	{
		Name: "futex_ping_pong", Family: "sync",
		Summary: "pairs that hand one futex word to and fro; wake latency is the wait for the own turn",
		Params: []Param{
			{Name: "spin_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses before each hand-over"},
		},
		GroupSize: pairs, Resource: SharedMemory,
		Wake: true, loop: futexPingPong,
	},
	{
		Name: "futex_fan_out", Family: "sync",
		Summary: "a messenger that wakes all receivers at once; wake latency is a receiver's wait",
		Params: []Param{
			{Name: "fan_out", Kind: Count, Default: 4, Min: 1, Max: maxSet - 1, Summary: "receivers per messenger"},
			{Name: "spin_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses before each wake-up or wait"},
		},
		GroupSize: firstPlusOne, Resource: SharedMemory,
		Wake: true, Wakes: notFirst, loop: futexFanOut,
	},
	{
		Name: "fan_out_compute", Family: "sync",
		Summary: "a messenger that wakes all receivers, who sleep and multiply matrices; wake latency is from the messenger's round to the receiver",
		Params: []Param{
			{Name: "fan_out", Kind: Count, Default: 4, Min: 1, Max: maxSet - 1, Summary: "receivers per messenger"},
			{Name: "cache_footprint_kib", Kind: Count, Default: 256, Min: 1, Max: 64 << 10, Summary: "of the three matrices of a receiver"},
			{Name: "operations", Kind: Count, Default: 5, Min: 1, Max: maxIters, Summary: "multiplications per wake-up"},
			{Name: "sleep", Kind: Duration, Default: 100 * usec, Max: maxSpan, Summary: "before them, as if waiting for a disk"},
		},
		GroupSize: firstPlusOne, Resource: SharedMemory, Region: fanOutBytes,
		Wake: true, Wakes: notFirst, loop: fanOutCompute,
	},
	{
		Name: "wake_chain", Family: "sync",
		Summary: "a ring of stages that hand a token around, working before each hop; wake latency is the wait for the token",
		Params: []Param{
			{Name: "depth", Kind: Count, Default: 4, Min: 2, Max: maxSet, Summary: "stages per ring"},
			{Name: "wake", Kind: Enum, Values: wakeMechanisms, Max: wakeByFutex, Summary: "how a stage wakes the next"},
			{Name: "work_per_hop", Kind: Duration, Default: 100 * usec, Max: maxSpan, Summary: "spinning before each hop"},
		},
		GroupSize: firstParam, Resource: PipeRing,
		Wake: true, loop: wakeChain,
	},
	{
		Name: "mutex_contention", Family: "sync",
		Summary: "contenders share one futex lock; wake latency is each wait for it",
		Params: []Param{
			{Name: "contenders", Kind: Count, Default: 4, Min: 1, Max: maxSet, Summary: "workers per lock"},
			{Name: "hold_iters", Kind: Count, Default: 256, Max: maxIters, Summary: "pauses while holding the lock"},
			{Name: "work_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses before taking it"},
		},
		GroupSize: firstParam, Resource: SharedMemory,
		Wake: true, loop: mutexContention,
	},
	{
		Name: "thundering_herd", Family: "sync",
		Summary: "a waker that lets all waiters go at once, batches times, and then rests; wake latency is a waiter's wait and the waker's sleep",
		Params: []Param{
			{Name: "waiters", Kind: Count, Default: 7, Min: 1, Max: maxSet - 1, Summary: "per waker"},
			{Name: "batches", Kind: Count, Default: 1000, Min: 1, Max: maxIters, Summary: "wake-ups of all"},
			{Name: "inter_batch", Kind: Duration, Default: 5 * msec, Max: maxSpan, Summary: "sleep before each"},
		},
		GroupSize: firstPlusOne, Resource: SharedMemory,
		Wake: true, loop: thunderingHerd,
	},
	{
		Name: "producer_consumer_imbalance", Family: "sync",
		Summary: "producers fill a bounded queue and consumers empty it; wake latency is each wait for a slot or an item",
		Params: []Param{
			{Name: "producers", Kind: Count, Default: 2, Min: 1, Max: maxSet, Summary: "workers that fill"},
			{Name: "consumers", Kind: Count, Default: 1, Min: 1, Max: maxSet, Summary: "workers that empty"},
			{Name: "produce_rate_hz", Kind: Count, Default: 1000, Max: 1_000_000, Summary: "items a second of a producer that never waits; 0 for as many as can be"},
			{Name: "consume_iters", Kind: Count, Default: 4096, Max: maxIters, Summary: "pauses per item"},
			{Name: "queue_depth_target", Kind: Count, Default: 1024, Min: 1, Max: maxDepth, Summary: "slots of the queue"},
		},
		GroupSize: firstTwo, Resource: SharedMemory, Region: queueBytes,
		Wake: true, loop: producerConsumerImbalance,
	},
	{
		Name: "priority_inversion", Family: "sync",
		Summary: "SCHED_FIFO 70 and 30 share a lock while 50 keeps the CPU; wake latency is from the first try until the lock was taken, where it had to wait",
		Params: []Param{
			{Name: "high_count", Kind: Count, Default: 1, Min: 1, Max: maxSet, Summary: "workers of priority 70, at the lock"},
			{Name: "medium_count", Kind: Count, Default: 1, Max: maxSet, Summary: "workers of priority 50, away from it"},
			{Name: "low_count", Kind: Count, Default: 1, Min: 1, Max: maxSet, Summary: "workers of priority 30, at the lock"},
			{Name: "hold_iters", Kind: Count, Default: 4096, Max: maxIters, Summary: "pauses while holding the lock"},
			{Name: "work_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses before taking it, and while a high one holds a plain lock"},
			{Name: "pi_mode", Kind: Enum, Values: lockModes, Max: lockPI, Summary: "a plain lock or one that lends its owner the priority of who waits"},
			{Name: "rest", Kind: Duration, Default: 1 * msec, Max: maxSpan, Summary: "of the high and medium ones after each pass; 0s lets them keep the low ones off their CPUs for good"},
		},
		GroupSize: firstThree, Resource: SharedMemory,
		Wake: true, Wakes: notMedium, loop: priorityInversion,
	},
	{
		Name: "asymmetric_waker", Family: "sched",
		Summary: "a waker of one scheduling class and a wakee of another; wake latency is the wakee's wait",
		Params: []Param{
			{Name: "waker_class", Kind: Enum, Values: schedClasses, Max: classExt, Summary: "rt is SCHED_FIFO 50, deadline 1ms of every 10ms"},
			{Name: "wakee_class", Kind: Enum, Values: schedClasses, Max: classExt, Summary: "as waker_class"},
			{Name: "burst_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
		},
		GroupSize: pairs, Resource: SharedMemory,
		Wake: true, Wakes: notFirst, loop: asymmetricWaker,
	},
	{
		Name: "rt_starvation", Family: "sched",
		Summary: "SCHED_FIFO spinners beside normal ones; starves only on shared CPUs, and wholly only with sched_rt_runtime_us at -1",
		Params: []Param{
			{Name: "rt_workers", Kind: Count, Default: 1, Min: 1, Max: maxSet, Summary: "real-time spinners"},
			{Name: "cfs_workers", Kind: Count, Default: 1, Min: 1, Max: maxSet, Summary: "normal spinners"},
			{Name: "rt_priority", Kind: Count, Default: 50, Min: 1, Max: 99, Summary: "of the real-time ones"},
			{Name: "burst_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
		},
		GroupSize: firstTwo, Urgent: thirdIs99, loop: rtStarvation,
	},
	{
		Name: "preempt_storm", Family: "sched",
		Summary: "a SCHED_FIFO worker that wakes often and briefly beside normal spinners",
		Params: []Param{
			{Name: "cfs_workers", Kind: Count, Default: 2, Min: 1, Max: maxSet - 1, Summary: "spinners per real-time worker"},
			{Name: "rt_burst_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
			{Name: "rt_sleep", Kind: Duration, Default: 1 * msec, Min: 1 * usec, Max: maxSpan, Summary: "of the real-time worker per pass"},
		},
		GroupSize: firstPlusOne, loop: preemptStorm,
	},
	{
		Name: "nice_sweep", Family: "sched",
		Summary: "spin, take the next nice value, sched_yield; wake latency is the yield",
		Wake:    true, loop: niceSweep,
	},
	{
		Name: "affinity_churn", Family: "sched",
		Summary: "spin, pin to another CPU at random, sched_yield; wake latency is the yield",
		Params: []Param{
			{Name: "spin_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
		},
		Wake: true, loop: affinityChurn,
	},
	{
		Name: "cross_affinity_churn", Family: "sched",
		Summary: "spin, change the affinity of the group's other workers, sched_yield; wake latency is the yield",
		Params: []Param{
			{Name: "spin_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
		},
		Wake: true, loop: crossAffinityChurn,
	},
	{
		Name: "policy_churn", Family: "sched",
		Summary: "spin, take the next of other, batch, idle, fifo and round robin, sched_yield; wake latency is the yield",
		Params: []Param{
			{Name: "spin_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
		},
		Wake: true, loop: policyChurn,
	},
	{
		Name: "signal_storm", Family: "lifecycle",
		Summary: "pairs that interrupt each other with SIGUSR2 and spin",
		Params: []Param{
			{Name: "signals_per_iter", Kind: Count, Default: 16, Min: 1, Max: maxIters, Summary: "per pass"},
			{Name: "work_iters", Kind: Count, Default: 1024, Max: maxIters, Summary: "pauses per pass"},
		},
		GroupSize: pairs, Resource: SharedMemory, Region: twoWords,
		loop: signalStorm,
	},
	{
		Name: "fork_exit", Family: "lifecycle",
		Summary: "fork a child that exits at once, and reap it; wake latency is the wait for it",
		Wake:    true, RefuseThread: refuseForkFromThreads, RefuseContainer: refuseForkFromThreads, loop: forkExit,
	},
	{
		Name: "cgroup_churn", Family: "lifecycle",
		Summary: "move from one cgroup to the next, then sleep",
		Params: []Param{
			{Name: "groups", Kind: Count, Default: 2, Min: 1, Max: MaxDataFDs, Summary: "cgroups to go through"},
			{Name: "cycle", Kind: Duration, Default: 100 * msec, Min: 1 * usec, Max: maxSpan, Summary: "sleeping after each move"},
		},
		Resource:     CgroupLeaves,
		RefuseThread: refuseMoveOfThreads, RefuseContainer: refuseMoveOfThreads, loop: cgroupChurn,
	},
	{
		Name: "cgroup_attach_storm", Family: "lifecycle",
		Summary: "fork children that exit at once, and attach each to a cgroup; wake latency is the wait for a child, with reap waitpid",
		Params: []Param{
			{Name: "dest", Kind: Text, Summary: "an existing cgroup, from the root of the hierarchy; empty is a new one"},
			{Name: "reap", Kind: Enum, Values: reapModes, Max: reapByWait, Summary: "sig_ign: the kernel reaps; waitpid: the worker does"},
		},
		Resource: CgroupTarget,
		Wake:     true, Wakes: attachWakes, RefuseThread: refuseSigchld, RefuseContainer: refuseSigchld, loop: cgroupAttachStorm,
	},
	{
		Name: "exec", Family: "program",
		Summary: "become a program, which does what it likes until it ends or is told to; both of its outputs are in the report, what it counts and how long it waits is not",
		Params: []Param{
			{Name: "argv", Kind: Texts, Min: 1, Max: maxArgs, Required: true, Summary: "the program and its arguments: an absolute path, or a name that is looked up in PATH, where the workload runs"},
			{Name: "env", Kind: Pairs, Max: maxArgs, Summary: "variables of its environment, beside PATH and HOME"},
			{Name: "cwd", Kind: Text, Text: "/", Summary: "absolute path of the directory that it begins in"},
			{Name: "output_kib", Kind: Count, Default: 64, Min: 1, Max: 1024, Summary: "how much of each output is kept: one half of how it began, the other of how it ended"},
			{Name: "stop_signal", Kind: Enum, Values: stopSignals, Max: uint64(len(stopSignals) - 1), Summary: "what tells its process group to stop"},
			{Name: "grace", Kind: Duration, Default: 1000 * msec, Max: 4000 * msec, Summary: "from then to SIGKILL, if it does not stop"},
		},
		Resource: ExecProgram, Urgent: always,
		RefuseThread: refuseExec, RefuseContainer: refuseExec, check: checkExec, loop: execProgram,
	},
	{
		Name: "fault_injection", Family: "lifecycle",
		Summary: "work for a while, then fail on purpose; for testing what a harness makes of it",
		Params: []Param{
			{Name: "kind", Kind: Enum, Values: faultKinds, Max: faultOverflow, Summary: "how it fails; hang ignores the request to stop"},
			{Name: "after", Kind: Duration, Default: 100 * msec, Max: maxSpan, Summary: "spinning before it"},
			{Name: "code", Kind: Count, Default: 3, Max: 255, Summary: "exit status, for exit"},
		},
		loop: faultInjection,
	},
}
