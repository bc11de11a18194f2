package spawn

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// guestMain is the test binary as /init of a guest: it makes the machine that
// the tests need, runs them with the words behind -- of the kernel command line
// as arguments, says how it ended and switches the machine off.
func guestMain(run func() int) {
	code := 1
	if err := setUpGuest(); err != nil {
		fmt.Println("spawn tests: set up the guest:", err)
	} else {
		code = run()
	}
	fmt.Printf("spawn tests: exit %d\n", code)
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("spawn tests: power off:", err)
	select {}
}

// setUpGuest mounts what a machine has and lets cgroups limit memory and
// processes.
func setUpGuest() error {
	for _, m := range []struct{ fstype, target string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.fstype, m.target, m.fstype, 0, "")
		if err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
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

// unable skips a test that this machine cannot run. The guest can run all: there
// it is a failure.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...) + "; the guest tests of e2e run it for certain"
	if os.Getpid() == 1 {
		t.Fatal("skipped in the guest: " + text)
	}
	t.Skip(text)
}
