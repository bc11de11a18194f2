package spawn

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/internal/guesttest"
)

// enableControllers lets the cgroups of the tests limit memory and processes.
func enableControllers() error {
	have, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(have)) {
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+"+name), 0); err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", name, err)
		}
	}
	return nil
}

// unable skips a test that this machine cannot run.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	guesttest.Unable(t, "TestSpawnInGuest", format, args...)
}

// scaled is how many workers or tries a test has, n, and in a guest a quarter of
// that: one emulated CPU takes ten times as long, and for a crowd longer still.
func scaled(n int) int {
	if os.Getpid() == 1 {
		return n / 4
	}
	return n
}
