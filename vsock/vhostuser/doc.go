// Package vhostuser is a virtio-vsock device in user space: the back end of
// QEMU's vhost-user-vsock-pci and vhost-user-vsock-device. QEMU hands it the
// guest's memory and the rings of the device over a Unix socket; the package
// moves the packets and gives the host's side of every connection as a
// net.Conn. It needs no privilege, no kernel module and no CID of the machine,
// so any number of guests run beside each other.
//
//	dev, err := vhostuser.New(vhostuser.Options{Socket: "vsock.ctl"})
//	l, err := dev.Listen(1024)            // the guest connects to CID 2, port 1024
//	conn, err := dev.Dial(ctx, 5000)      // a program in the guest listens on port 5000
//
// and QEMU with
//
//	-machine q35,memory-backend=mem0
//	-object memory-backend-memfd,id=mem0,size=512M,share=on
//	-chardev socket,id=vs0,path=vsock.ctl -device vhost-user-vsock-pci,chardev=vs0
//
// Layers, from QEMU upwards, each in files of its name:
//
//	wire, session   messages of the vhost-user protocol, and what they set up
//	memory, queue   the guest's memory, split virtqueues in it
//	packet, stream  headers of virtio-vsock; the state of one connection
//	mux             all connections, in turn, over the two rings
//	conn, listener  net.Conn, net.Listener
//	host, sink      Unix sockets for other programs
//
// The guest owns the rings and the bytes in them and may lie. Whatever it
// writes, it can lose its own connections and nothing else: no access outside
// its memory, no walk without an end, no buffer without a limit. The same holds
// for what QEMU sends, but for file descriptors, which are QEMU's to give.
//
// Documents: virtio 1.2 sections 2.7 (split virtqueues) and 5.10 (sockets),
// and docs/interop/vhost-user.rst of QEMU. What the device offers: stream
// sockets, indirect descriptors, event indices. What it does not: sequenced
// packets, packed rings, migration (QEMU refuses it then).
//
// The package imports nothing else of guestinit.
package vhostuser
