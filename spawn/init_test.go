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

// rounds is how often a test tries what goes wrong by chance: n times, and a
// quarter of that in a guest, where each takes eight times as long.
func rounds(n int) int {
	if os.Getpid() == 1 {
		return n / 4
	}
	return n
}
