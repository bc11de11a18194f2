package scenario

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "types" { // the program that an example runs
		fmt.Println("spin_wait")
		os.Exit(0)
	}
	if os.Getpid() == 1 {
		guestMain(m.Run)
	}
	os.Exit(m.Run())
}

// guestMain is the test binary as /init of a guest.
func guestMain(run func() int) {
	code := 1
	if err := setUpGuest(); err != nil {
		fmt.Println("scenario tests: set up the guest:", err)
	} else {
		code = run()
	}
	fmt.Printf("scenario tests: exit %d\n", code)
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("scenario tests: power off:", err)
	select {}
}

// setUpGuest mounts what PID 1 mounts. It leaves the controllers to the engine.
func setUpGuest() error {
	for _, m := range []struct{ fstype, target string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	return nil
}

// unable skips a test that this machine cannot run. The guest can run all: there
// it is a failure.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...) + "; TestScenarioInGuest of e2e runs it for certain"
	if os.Getpid() == 1 {
		t.Fatal("skipped in the guest: " + text)
	}
	t.Skip(text)
}

// controllers skips a test where cgroups cannot be made or lack controllers.
func controllers(t *testing.T, names ...string) {
	t.Helper()
	if unix.Geteuid() != 0 {
		unable(t, "cgroups need root")
	}
	root := cgroupRoot(t)
	have, err := fields(root, "cgroup.controllers")
	if err != nil {
		unable(t, "no cgroup v2: %v", err)
	}
	for _, name := range names {
		if !strings.Contains(" "+strings.Join(have, " ")+" ", " "+name+" ") {
			unable(t, "cgroup v2 has no controller %s here", name)
		}
	}
}
