// Package spawn turns a workload into running workers and back into reports: it
// checks the whole workload, makes what the workers share, gives birth to them,
// opens the start gate, stops them and collects exactly one report per worker,
// whatever became of it.
//
// A worker is one kernel task that runs a loop of package worker with no Go
// runtime under it: a process of its own, a thread of this process, or a thread
// of a container's leader. Spawner and worker talk through a slab of shared memory
// alone, so that what a killed worker had measured is still there.
//
//	h, err := spawn.Spawn(spawn.Workload{Groups: groups})
//	if err != nil { ... }
//	defer h.Close()
//	reports, err := h.Run(ctx, time.Second)
//
// All clones of a process are made by one OS thread that lives as long as the
// process, because the kernel ties a worker's parent-death signal to the thread
// that cloned it. The package may import worker, internal/bare, spec and report.
package spawn
