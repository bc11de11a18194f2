package guest

import (
	"golang.org/x/sys/unix"
)

// system is what PID 1 does to its machine and a test must not.
type system interface {
	Mount(source, target, fstype string, flags uintptr, data string) error
	Unmount(target string, flags int) error
	FinitModule(fd int, params string, flags int) error
	Sync()
	Reboot(cmd int) error
}

// kernel is the system of a real guest.
type kernel struct{}

func (kernel) Mount(source, target, fstype string, flags uintptr, data string) error {
	return unix.Mount(source, target, fstype, flags, data)
}
func (kernel) Unmount(target string, flags int) error { return unix.Unmount(target, flags) }
func (kernel) FinitModule(fd int, params string, flags int) error {
	return unix.FinitModule(fd, params, flags)
}
func (kernel) Sync()                { unix.Sync() }
func (kernel) Reboot(cmd int) error { return unix.Reboot(cmd) }
