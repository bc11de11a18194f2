// Package guesttest serves tests: a test binary as /init of a guest, and a check
// that the tests of a package leave no file open.
package guesttest

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Init is the test binary as /init: it mounts what PID 1 mounts, calls setUp
// unless it is nil, calls run, whose tests have the words behind -- of the kernel
// command line as arguments, says "NAME: exit STATUS" and switches the machine off.
func Init(name string, setUp func() error, run func() int) {
	code := 1
	err := mount()
	if err == nil && setUp != nil {
		err = setUp()
	}
	if err != nil {
		fmt.Printf("%s: set up the guest: %v\n", name, err)
	} else {
		code = run()
	}
	fmt.Printf("%s: exit %d\n", name, code)
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Printf("%s: power off: %v\n", name, err)
	select {}
}

// mount takes a mount that the kernel made already for its own.
func mount() error {
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

// Unable skips a test that this machine cannot run, and names the test of e2e that
// runs it for certain in a guest. The guest can run all: there it is a failure.
func Unable(t *testing.T, elsewhere, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...) + "; " + elsewhere + " of e2e runs it for certain"
	if os.Getpid() == 1 {
		t.Fatal("skipped in the guest: " + text)
	}
	t.Skip(text)
}

// CloseFiles runs the tests of a package and returns their exit status, or 1 where
// they leave file descriptors open.
func CloseFiles(m *testing.M) int {
	before := openFiles()
	code := m.Run()
	if after := openFiles(); code == 0 && after > before {
		fmt.Fprintf(os.Stderr, "%d file descriptors before the tests, %d after\n", before, after)
		code = 1
	}
	return code
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
