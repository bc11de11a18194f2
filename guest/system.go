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

// realSystem is the system of a real guest.
type realSystem struct{}

func (realSystem) Mount(source, target, fstype string, flags uintptr, data string) error {
	return unix.Mount(source, target, fstype, flags, data)
}
func (realSystem) Unmount(target string, flags int) error { return unix.Unmount(target, flags) }
func (realSystem) FinitModule(fd int, params string, flags int) error {
	return unix.FinitModule(fd, params, flags)
}
func (realSystem) Sync()                { unix.Sync() }
func (realSystem) Reboot(cmd int) error { return unix.Reboot(cmd) }
