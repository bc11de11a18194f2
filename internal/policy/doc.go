// Package policy holds the rules of this project as tests: where unsafe code may
// stand, which package may import which, that exported names are documented, that
// nothing sleeps or is set up before main. It has no code of its own and is
// imported by nothing.
package policy
