package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/vsock"
)

// The links, by the names that reports have for them.
const (
	linkKernel = "vhost-vsock"      // the device of the host's kernel
	linkUser   = "vhost-user-vsock" // our own
	linkSerial = "serial"
	linkEither = "vhost-user-vsock or serial" // the guest chooses
)

// The words of Options.Link, beside "" and auto.
const (
	optVsock  = "vsock"
	optSerial = "serial"
)

// link is a way between guest and host.
type link interface {
	// name is what the report calls it.
	name() string
	// word is the value of guestinit.link= on the kernel command line.
	word() string
	// show adds the device as a command line shows it. dir is where a command
	// to be pasted has its sockets; "" is the current directory.
	show(c *qemu.Config, dir string)
	// open makes the host's end for one boot of c, which it completes.
	open(r *runner, c *qemu.Config) (*linkEnd, error)
}

// linkEnd is the host's end of a link for one boot.
type linkEnd struct {
	file *os.File // for qemu.Options.Vsock; closed once QEMU has it
	// accept returns the stream to the guest and the name of what carries it.
	// It waits for the guest, no longer than ctx and QEMU last.
	accept func(ctx context.Context, vm *qemu.VM) (net.Conn, string, error)
	close  func() // ends everything; nil for nothing
}

// given closes what QEMU has a copy of.
func (e *linkEnd) given() {
	if e.file != nil {
		e.file.Close()
		e.file = nil
	}
}

func (e *linkEnd) end() {
	e.given()
	if e.close != nil {
		e.close()
	}
}

// chooseLinks returns the links to try for guest kernel k, the best one first,
// and notes about better ones that cannot be had.
func chooseLinks(opt string, k *kernel.Kernel) (links []link, notes []string, err error) {
	if opt == optSerial {
		return []link{serialLink{}}, nil, nil
	}
	support, err := initramfs.Supports(k, "vsock")
	if err != nil {
		return nil, nil, &Error{Class: Setup, Msg: "choose the host link", Err: err}
	}
	if support == initramfs.Unsupported {
		why := fmt.Sprintf("kernel %s has no driver for virtio-vsock (vmw_vsock_virtio_transport)", k.Release)
		if opt == optVsock {
			return nil, nil, &Error{Class: Setup, Msg: "link: " + why + "; use --link auto"}
		}
		return []link{serialLink{}}, []string{"the host link is virtio-serial: " + why}, nil
	}
	l, err := newKernelLink()
	switch {
	case err == nil:
		links = append(links, l)
	case !errors.Is(err, fs.ErrNotExist): // most machines have none, and need none
		notes = append(notes, "the host's own vsock device is not used: "+err.Error())
	}
	switch {
	case opt == optVsock:
		return append(links, userLink{}), notes, nil
	case support == initramfs.Unknown:
		return []link{eitherLink{}}, nil, nil
	}
	return append(links, userLink{}, serialLink{}), notes, nil
}

// features are the drivers that the image needs for the links.
func linkFeatures(links []link) []string {
	var f []string
	for _, l := range links {
		switch l.name() {
		case linkSerial:
			f = append(f, "serial")
		case linkEither:
			f = append(f, "serial", "vsock")
		default:
			f = append(f, "vsock")
		}
	}
	return f
}

// serialLink is a virtio-serial port, which every guest kernel since 2.6.36 has a
// driver for and which needs nothing of the host.
type serialLink struct{}

func (serialLink) name() string { return linkSerial }
func (serialLink) word() string { return cmdline.LinkSerial }

func (serialLink) show(c *qemu.Config, dir string) {
	c.Link = filepath.Join(dir, keepLink)
}

func (serialLink) open(_ *runner, c *qemu.Config) (*linkEnd, error) {
	c.Link = keepLink
	return &linkEnd{accept: func(_ context.Context, vm *qemu.VM) (net.Conn, string, error) {
		return vm.Link(), linkSerial, nil
	}}, nil
}

// kernelLink is the vsock device of the host's kernel.
type kernelLink struct{ port uint32 }

// newKernelLink tells whether that device can be used, and picks a port: the
// machine's guests share its CID 2.
func newKernelLink() (link, error) {
	f, _, err := vsock.ReserveCID()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := vsock.Listen(vsock.CIDAny, 0)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return kernelLink{port: l.Addr().(vsock.Addr).Port}, nil
}

func (kernelLink) name() string   { return linkKernel }
func (l kernelLink) word() string { return fmt.Sprintf("%s:%d", cmdline.LinkVsock, l.port) }

func (kernelLink) show(c *qemu.Config, _ string) { c.VsockCID = 3 }

func (l kernelLink) open(_ *runner, c *qemu.Config) (*linkEnd, error) {
	file, cid, err := vsock.ReserveCID()
	if err != nil {
		return nil, err
	}
	listener, err := vsock.Listen(vsock.CIDAny, l.port)
	if err != nil {
		file.Close()
		return nil, err
	}
	c.VsockCID = cid
	accept := func(ctx context.Context, vm *qemu.VM) (net.Conn, string, error) {
		defer context.AfterFunc(ctx, func() { listener.Close() })()
		defer closeAtEnd(vm, listener)()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil, "", noGuest(ctx, vm, err)
			}
			// Other guests of the machine reach the port too.
			if from, ok := conn.RemoteAddr().(vsock.Addr); ok && from.CID == cid {
				return conn, linkKernel, nil
			}
			conn.Close()
		}
	}
	return &linkEnd{file: file, accept: accept, close: func() { listener.Close() }}, nil
}
