// Package scx runs a sched_ext scheduler beside a workload: it starts the
// scheduler's program, waits until the kernel has enabled the scheduler, watches
// it, ends it, and finds out why one failed: from /sys/kernel/sched_ext, the
// kernel's log and what the program wrote. It may import program and report.
//
// The kernel's side is described in Documentation/scheduler/sched-ext.rst.
package scx
