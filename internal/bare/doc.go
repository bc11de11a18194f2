// Package bare is the ground that workers stand on: code that runs with no Go
// runtime under it. A worker is one kernel task that clone3(2) made on a stack
// of its own; the runtime does not know it, so the code it runs must never
// allocate, use a map, channel, goroutine, defer or interface, build a string,
// capture a closure or store a pointer anywhere but on its own stack. A test
// walks the machine code of everything reachable from the entry points and
// fails on any call into the runtime that is not on its short list.
//
// Three kinds of file hold the package:
//
//   - birth: Area and Clone, which the spawner calls with the runtime under it;
//   - code for tasks: system calls, futexes, clocks, signals, readers of /proc;
//   - plain data that both sides read: Fault, Histogram, Reservoir.
//
// The package imports nothing else of guestinit but internal/sample.
package bare
