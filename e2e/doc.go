// Package e2e holds the end-to-end tests: the program that ships, run as a user
// runs it, on the three kernels. It has no code of its own.
package e2e
