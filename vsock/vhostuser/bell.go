package vhostuser

import "golang.org/x/sys/unix"

// bell is an eventfd that the device only ever writes to. It is no os.File: the
// runtime's poller would wake at every write of ours and every read of QEMU's.
type bell struct{ fd int }

// ring adds one to the counter. A full counter is a notification too, and nil is
// a bell that nobody wants to hear.
func (b *bell) ring() {
	if b != nil {
		_, _ = unix.Write(b.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// swapBell replaces a bell and closes the one before.
func swapBell(old **bell, b *bell) {
	if *old != nil {
		unix.Close((*old).fd)
	}
	*old = b
}
