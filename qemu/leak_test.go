package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/qemu/qemutest"
)

// openFiles are the descriptors of this process and what is behind them.
func openFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{}
	for _, n := range names {
		if to, err := os.Readlink(n); err == nil && !strings.HasPrefix(to, "/proc/") {
			open[n] = to
		}
	}
	return open
}

// Every way through Start gives back all descriptors.
func TestNothingLeaks(t *testing.T) {
	qemutest.QEMU(t)
	c := machine(qemutest.Kernel(t, qemutest.PowerOff()))
	c.Link = "link"
	bad := c
	bad.Binary = filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(bad.Binary, []byte("garbage\x00"), 0o755); err != nil {
		t.Fatal(err)
	}
	once := func() {
		vm, err := Start(t.Context(), c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		waitDone(t, vm)
		vm.Link().Close()
		if _, err := Start(t.Context(), bad, Options{}); err == nil {
			t.Fatal("garbage was started")
		}
	}
	once() // what the runtime opens once, such as its poller, is not a leak
	before := openFiles(t)
	once()
	// A pidfd or a pipe may be closed by a goroutine that is on its way out.
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		after := openFiles(t)
		if len(after) <= len(before) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("before %v, after %v", before, after)
		}
	}
}
