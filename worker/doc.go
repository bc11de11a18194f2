// Package worker is the work types: what each is called, which parameters it
// takes, and the loop that a worker runs. One table, Types, lists them all; the
// spec decoder, the documentation and the spawner read it, so adding a type is
// one file and one row.
//
// The loops run outside the Go runtime, under the rules of internal/bare: no
// allocation, no defer, no interface, no pointer stored anywhere but on the
// stack. All they say goes through their Slab. Every loop looks at its stop word
// at least every 100 ms.
package worker
