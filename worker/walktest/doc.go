// Package walktest proves that the loops of workers stay outside the Go runtime: it
// walks the machine code of a program from where tasks begin along every call, and
// reports each way into the runtime that is not on its short list. It is for
// tests, those of programs that register work types too:
//
//	func TestLoop(t *testing.T) { walktest.StaysOut(t, myLoop) }
//
// It decodes amd64. The package imports nothing of guestinit.
package walktest
