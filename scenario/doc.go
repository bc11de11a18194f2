// Package scenario drives a spec through the spawn pipeline. Groups alone are
// born, run for the spec's duration, stopped and collected. For all else there is
// the engine: it makes cgroups and gives birth in them, plays steps and the
// operations between them, tells the workers of the backdrop of every boundary,
// collects each step's groups at its end, and takes everything down in reverse,
// whatever fails. It hands out one report per worker, and runs the same way on a
// host and under PID 1 of a guest. It may import program, report, scx, spawn,
// spec, topology and worker; it never knows who reads the reports.
package scenario
