package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/vsock"
)

// PortName is the name of the virtio-serial port that leads to the host.
const PortName = "guestinit.0"

// How long the port may take to appear once the driver is loaded.
const (
	portWait     = 10 * time.Second       // when the command line says that it is there
	portAutoWait = 500 * time.Millisecond // when it may be
	portLook     = 100 * time.Millisecond // between two looks, should an event be missed
	portLookBare = 10 * time.Millisecond  // the same without events
)

// errNoPort: there is no port of that name.
var errNoPort = errors.New("no virtio-serial port " + PortName)

// openLink finds the host, and says hello to it.
func (b *boot) openLink() (string, error) {
	b.device = cmdline.LinkNone
	switch b.line.Link {
	case cmdline.LinkNone:
		return "none, the report goes to the console", nil
	case cmdline.LinkAuto:
		return b.tryLinks()
	}
	line := b.line
	if b.failed {
		line.Link = cmdline.LinkAuto // no long wait for what may be missing too
	}
	stream, err := b.dial(line, b.line.Link)
	if err != nil {
		return "", err
	}
	return b.greet(stream, b.line.Link)
}

// tryLinks takes the first link on which there is a host.
func (b *boot) tryLinks() (string, error) {
	for _, link := range []string{cmdline.LinkVsock, cmdline.LinkSerial} {
		stream, err := b.dial(b.line, link)
		if err == nil {
			return b.greet(stream, link)
		}
		if !errors.Is(err, errNoVsock) && !errors.Is(err, errNoPort) {
			return "", err
		}
	}
	return "no host, the report goes to the console", nil
}

// greet says hello through a stream and keeps it as the link.
func (b *boot) greet(stream io.ReadWriteCloser, device string) (string, error) {
	link := vsock.NewGuest(stream)
	uts := uname()
	err := link.Hello(vsock.Hello{
		Version:       b.opts.Version,
		KernelRelease: uts.release,
		Machine:       uts.machine,
		NeedSpec:      b.specSource() == cmdline.SpecLink,
		BootMs:        b.bootMs,
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("say hello: %w", err), link.Close())
	}
	b.link, b.device = link, device
	return device, nil
}

// openPort waits for the port and opens it.
func openPort(wait time.Duration) (io.ReadWriteCloser, error) {
	name, err := awaitPort("/sys/class/virtio-ports", wait)
	if err != nil {
		return nil, err
	}
	// With O_NONBLOCK the file has deadlines, so that no wait on the host is
	// without end.
	path := filepath.Join("/dev", name)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// awaitPort waits until the port is there and returns its device name. The
// kernel creates a port first and names it later; both make a uevent.
func awaitPort(class string, wait time.Duration) (string, error) {
	// A driver that is built in was there before PID 1.
	if name, _ := findPort(class); name != "" {
		return name, nil
	}
	events, err := openUevents()
	look := portLook
	if err != nil {
		look = portLookBare
	} else {
		defer unix.Close(events)
	}
	deadline := time.Now().Add(wait)
	for {
		name, seen := findPort(class)
		if name != "" {
			return name, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return "", fmt.Errorf("%w in %v (%s); is the virtio_console module in the image, and the device in the machine?",
				errNoPort, wait, seen)
		}
		awaitUevent(events, min(left, look))
	}
}

// findPort looks for the port among all, and says what it saw.
func findPort(class string) (name, seen string) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return "", "the kernel has no driver for such ports"
	}
	for _, e := range entries {
		text, err := readFile(filepath.Join(class, e.Name(), "name"), 4096)
		if err != nil {
			continue // not named yet, or never
		}
		if strings.TrimSpace(string(text)) == PortName {
			return e.Name(), ""
		}
	}
	return "", fmt.Sprintf("%d ports of other names", len(entries))
}

// openUevents returns a socket that hears the kernel's device events.
func openUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("listen to device events: socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen to device events: bind: %w", err)
	}
	return fd, nil
}

// awaitUevent waits for device events, drops them, and returns when there was
// one or the time is up. A negative fd only waits.
func awaitUevent(fd int, d time.Duration) {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(set, int(d.Milliseconds())+1); err != nil || n == 0 {
		return // the caller looks again either way
	}
	var buf [4096]byte
	for {
		if _, _, err := unix.Recvfrom(fd, buf[:], 0); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// utsname is what uname(2) says.
type utsname struct{ release, machine string }

func uname() utsname {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return utsname{"unknown", "unknown"}
	}
	return utsname{unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}
}
