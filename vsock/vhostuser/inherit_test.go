package vhostuser

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/qemu/qemutest"
)

// QEMU takes a socket pair as well as a path: the guest's machine is made, runs
// to its end, and the device ends with it.
func TestInheritedSocket(t *testing.T) {
	binary := qemutest.QEMU(t)
	tiny := qemutest.Kernel(t, qemutest.Say("here\n", 1), qemutest.PowerOff())
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "vsock")
	d, err := New(Options{Conn: unixConn(t, fds[0]), Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	args := []string{
		"-machine", "q35,memory-backend=mem0", "-accel", "tcg", "-m", "64M", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", tiny,
	}
	cmd := exec.CommandContext(t.Context(), binary, append(args, Args(64, "fd=3")...)...)
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil || !strings.Contains(string(out), "here") {
		t.Errorf("%v: %s", err, out)
	}
	select {
	case <-d.Done():
	case <-time.After(10 * time.Second):
		t.Error("the device outlives QEMU")
	}
}
