// Package program runs programs beside a workload: ordinary children in process
// groups of their own, which end when this process does, with what they write
// kept within bounds. It imports nothing of guestinit.
package program
