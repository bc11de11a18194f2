package bare

import (
	"testing"
	"unsafe"
)

// TestLayouts compares the structures that the kernel or assembly reads with
// the headers they come from.
func TestLayouts(t *testing.T) {
	var tcb TCB
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"struct clone_args", unsafe.Sizeof(CloneArgs{}), 88}, // CLONE_ARGS_SIZE_VER2
		{"clone_args.stack", unsafe.Offsetof(CloneArgs{}.Stack), 40},
		{"clone_args.cgroup", unsafe.Offsetof(CloneArgs{}.Cgroup), 80},
		{"struct sigaction", unsafe.Sizeof(kernelSigaction{}), 32},
		{"g.stackguard0", unsafe.Offsetof(tcb.stackGuard0), 16}, // what prologues compare with
		{"tp below the end", tlsOffset % 8, 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.what, c.got, c.want)
		}
	}
	if two := 2 * unsafe.Sizeof(tcb); two > tcbSize {
		t.Errorf("two TCBs are %d bytes, the area has %d", two, tcbSize)
	}
}
