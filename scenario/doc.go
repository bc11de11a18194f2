// Package scenario drives a spec through the spawn pipeline: it gives birth to
// the groups, lets them run for the spec's duration, stops and collects them and
// hands out one report per worker. It runs the same way on a host and under
// PID 1 of a guest. It may import spawn, worker, spec, topology and report.
package scenario
