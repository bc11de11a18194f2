package spawn

import "testing"

// TestPidfdsLieInSharedMemory: the kernel writes the pidfd of a clone to an address
// that the request holds as a number, so it must be one that no stack or heap of Go
// moves away from.
func TestPidfdsLieInSharedMemory(t *testing.T) {
	h := start(t, group(3, "spin_wait"))
	last := h.procs[len(h.procs)-1].pidfd
	if got := int(h.arena.shared.PidFD); got != last || last <= 0 {
		t.Errorf("the shared word holds descriptor %d, the last worker's pidfd is %d", got, last)
	}
	collect(t, h)
}
