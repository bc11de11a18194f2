package launch

import (
	"context"
	"net"
	"path/filepath"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/qemu"
)

// link is a way between guest and host: what the machine and the image need for
// it, and how the host gets hold of its end.
type link interface {
	// name is the word for guestinit.link= and for the report.
	name() string
	// feature is the initramfs feature that brings the drivers.
	feature() string
	// configure adds the device. dir is where a command to be pasted has its
	// sockets; "" is the current directory.
	configure(c *qemu.Config, dir string)
	// connect returns the host's end. It may wait for the guest, no longer
	// than ctx allows.
	connect(ctx context.Context, vm *qemu.VM) (net.Conn, error)
}

// newLink returns the link that Options.Link names.
func newLink(string) link { return serialLink{} }

// serialLink is a virtio-serial port, which every guest kernel since 2.6.36 has a
// driver for and which needs nothing of the host.
type serialLink struct{}

func (serialLink) name() string    { return cmdline.LinkSerial }
func (serialLink) feature() string { return "serial" }

func (serialLink) configure(c *qemu.Config, dir string) {
	c.Link = filepath.Join(dir, keepLink)
}

func (serialLink) connect(_ context.Context, vm *qemu.VM) (net.Conn, error) {
	return vm.Link(), nil
}
