package kernel

import (
	"fmt"
	"os"
	"testing"
)

// TestMain fails the package when its tests leave file descriptors open.
func TestMain(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if after := openFiles(); code == 0 && after > before {
		fmt.Fprintf(os.Stderr, "%d file descriptors before the tests, %d after\n", before, after)
		code = 1
	}
	os.Exit(code)
}

// openFiles counts descriptors of files, not those that the Go runtime keeps
// for its poller.
func openFiles() int {
	n := 0
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to[0] == '/' {
			n++
		}
	}
	return n
}
