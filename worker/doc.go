// Package worker is the work types: what each is called, which parameters it
// takes, and the loop that a worker runs. One table, Types, lists them all; the
// spec decoder, the documentation and the spawner read it, so adding a type is
// one file and one row, and a line in the test that pins the defaults.
//
// The loops run outside the Go runtime, under the rules of internal/bare: no
// allocation, no defer, no interface, no pointer stored anywhere but on the
// stack. All they say goes through their Slab. Every loop looks at its stop word
// at least every 100 ms.
//
// # Work types of your own
//
// A program that imports this package and package spawn can add its own types with
// Register. What their loops may do is the methods of Slab and the functions
// beside them, package sync/atomic, arithmetic, and memory that is theirs: the
// stack (60 KB) and the words of Slab.Word. They must never allocate, print, use
// a map, channel, string building, defer, closure, goroutine or interface, call
// into other packages that do, or store a pointer anywhere but on their stack;
// and never wait longer than 100 ms without a look at Slab.Stopped. Build the
// program with CGO_ENABLED=0 and without -race. A bug ends the worker alone, and
// its report has the stack.
//
// A test of the program proves that a loop keeps the rules, by walking its machine
// code:
//
//	func TestLoop(t *testing.T) { walktest.StaysOut(t, myLoop) }
package worker
