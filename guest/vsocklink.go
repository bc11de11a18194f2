package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/vsock"
)

// How long the host may take to answer on a vsock.
const (
	vsockWait     = 20 * time.Second       // when the command line says that it does
	vsockAutoWait = 200 * time.Millisecond // for the driver, when it may
	vsockPause    = 2 * time.Millisecond   // between two tries, at first
	vsockPauseMax = 100 * time.Millisecond
)

// errNoVsock: the kernel has no vsock, or nobody on the host answers there.
var errNoVsock = errors.New("no host on the vsock")

// dialHost opens the way to the host that link names.
func dialHost(line cmdline.Line, link string) (io.ReadWriteCloser, error) {
	auto := line.Link == cmdline.LinkAuto
	switch {
	case link == cmdline.LinkVsock && auto:
		return dialVsock(line.Port, vsockAutoWait, false)
	case link == cmdline.LinkVsock:
		return dialVsock(line.Port, vsockWait, true)
	case auto:
		return openPort(portAutoWait)
	}
	return openPort(portWait)
}

// dialVsock connects to a port of the host, again and again while the driver
// probes and, if insist, while the host does not listen yet.
func dialVsock(port uint32, wait time.Duration, insist bool) (io.ReadWriteCloser, error) {
	if port == 0 {
		port = vsock.Port
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for pause := vsockPause; ; pause = min(2*pause, vsockPauseMax) {
		conn, err := vsock.Dial(ctx, vsock.CIDHost, port)
		if err == nil {
			return conn, nil
		}
		if !again(err, insist) || ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %v%s", errNoVsock, err, vsockHint(err))
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("%w in %v: %v%s", errNoVsock, wait, err, vsockHint(err))
		}
	}
}

// again tells whether a later try may go better.
func again(err error, insist bool) bool {
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EINVAL):
		return false // the kernel knows no such sockets
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EADDRNOTAVAIL):
		return true // no device yet
	}
	return insist
}

// vsockHint says what to look at.
func vsockHint(err error) string {
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return "; the kernel has no vsock: is CONFIG_VIRTIO_VSOCKETS set, or the module vmw_vsock_virtio_transport in the image?"
	case errors.Is(err, unix.ENODEV):
		return "; has the machine a vsock device?"
	case errors.Is(err, unix.ECONNRESET):
		return "; nobody listens on the host"
	}
	return ""
}
