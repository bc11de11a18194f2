package vsock

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// hostDevice is the kernel's vsock device for guests.
const hostDevice = "/dev/vhost-vsock"

// setGuestCID is VHOST_VSOCK_SET_GUEST_CID of linux/vhost.h: _IOW(0xAF, 0x60, __u64).
const setGuestCID = 0x4008_af60

const (
	cidTries = 64
	firstCID = 1 << 16 // below are those that people pick by hand
	lastCID  = 1<<31 - 1
)

// ReserveCID opens the host's vsock device with a CID of its own for one guest.
// QEMU takes both, as -device vhost-vsock-pci,guest-cid=CID,vhostfd=N; the CID
// is free again when all have closed the file. Where the host has no such
// device the error matches fs.ErrNotExist, and fs.ErrPermission where it may
// not be used.
func ReserveCID() (*os.File, uint32, error) {
	f, err := os.OpenFile(hostDevice, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%w; load the module vhost_vsock, or use the device in user space", err)
	}
	if err != nil {
		return nil, 0, err
	}
	cid, err := pickCID(func(cid uint32) error {
		// The argument is a pointer to a 64-bit CID, in the machine's byte
		// order; a Winsize is 64 bits, and what the unix package passes
		// pointers to.
		return unix.IoctlSetWinsize(int(f.Fd()), setGuestCID, &unix.Winsize{Row: uint16(cid), Col: uint16(cid >> 16)})
	})
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, cid, nil
}

// pickCID tries CIDs at random until set takes one.
func pickCID(set func(cid uint32) error) (uint32, error) {
	var err error
	for range cidTries {
		cid := firstCID + rand.Uint32N(lastCID-firstCID+1)
		if err = set(cid); err == nil {
			return cid, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break // EADDRINUSE: another guest has it
		}
	}
	return 0, fmt.Errorf("set guest CID on %s: %w", hostDevice, err)
}
