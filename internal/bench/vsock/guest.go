package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/vsock"
)

// Ports. The host's are where the guest connects to.
const (
	portEcho    = 5003 // of the guest
	portDrain   = 5009
	hostControl = 6000
	hostEcho    = 6002
	hostDrain   = 6003
)

// bulkBytes is how much goes one way to measure throughput. The receiver
// counts, and answers with a byte when it has all of it.
const bulkBytes = 32 << 20

// order is what the host tells the guest to do; answer is what came of it.
type order struct {
	Do   string // "up", "trips", "serial up", "serial down", "serial trips", "off"
	Size int    // of a write, in bytes
}

type answer struct {
	Err           string
	Seconds       float64       // of a bulk transfer
	Connect, Trip time.Duration // medians
}

// guest is the life of the program as /init.
func guest() {
	err := serveGuest()
	fmt.Println("guest: end:", err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func serveGuest() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	for port, serve := range map[uint32]func(net.Conn){portEcho: echo, portDrain: drain} {
		l, err := vsock.Listen(vsock.CIDAny, port)
		if err != nil {
			return err
		}
		go accept(l, serve)
	}
	c, err := vsock.Dial(context.Background(), vsock.CIDHost, hostControl)
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return err
		}
		if o.Do == "off" {
			return nil
		}
		a, err := obey(o)
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func obey(o order) (a answer, err error) {
	dial := func(port uint32) func() (net.Conn, error) {
		return func() (net.Conn, error) { return vsock.Dial(context.Background(), vsock.CIDHost, port) }
	}
	switch o.Do {
	case "up":
		var c net.Conn
		if c, err = dial(hostDrain)(); err != nil {
			return a, err
		}
		defer c.Close()
		a.Seconds, err = bulk(c, o.Size)
		return a, err
	case "trips":
		a.Connect, a.Trip, err = connects(dial(hostEcho))
		return a, err
	}
	port, err := openPort()
	if err != nil {
		return a, err
	}
	defer port.Close()
	switch o.Do {
	case "serial up":
		a.Seconds, err = bulk(port, o.Size)
	case "serial down":
		a.Seconds, err = swallow(port)
	case "serial trips":
		a.Trip, err = trips(port)
	default:
		err = fmt.Errorf("unknown order %q", o.Do)
	}
	return a, err
}

// openPort opens the virtio-serial port.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/dev/vport*p1")
	if err != nil || len(names) != 1 {
		return nil, fmt.Errorf("virtio-serial ports: %q, %w", names, err)
	}
	return os.OpenFile(names[0], os.O_RDWR, 0)
}

func loadModules() error {
	list, err := os.Open("/etc/guestinit/modules")
	if err != nil {
		return err
	}
	defer list.Close()
	for s := bufio.NewScanner(list); s.Scan(); {
		_, path, ok := strings.Cut(s.Text(), " ")
		if !ok {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

// accept serves every connection, until the listener is closed.
func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

func echo(c net.Conn) {
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// drain reads a bulk transfer, says that it is there, and waits for the end.
func drain(c net.Conn) {
	if _, err := swallow(c); err != nil {
		return
	}
	_, _ = c.Read(make([]byte, 1))
}

// swallow is the receiver of a bulk transfer.
func swallow(c io.ReadWriter) (seconds float64, err error) {
	at := time.Now()
	b := make([]byte, 256<<10)
	for left := bulkBytes; left > 0; {
		n, err := c.Read(b[:min(left, len(b))])
		if left -= n; err != nil {
			return 0, fmt.Errorf("%d bytes are missing: %w", left, err)
		}
	}
	seconds = time.Since(at).Seconds()
	_, err = c.Write([]byte{1})
	return seconds, err
}

// bulk sends in writes of size and waits until the peer has all of it.
func bulk(c io.ReadWriter, size int) (seconds float64, err error) {
	b := make([]byte, size)
	at := time.Now()
	for left := bulkBytes; left > 0; left -= size {
		if _, err := c.Write(b[:min(size, left)]); err != nil {
			return 0, err
		}
	}
	_, err = io.ReadFull(c, b[:1])
	return time.Since(at).Seconds(), err
}

const rounds = 200

// connects gives medians of connects and of round trips of one byte on new
// connections, the first trip of each left out: backlogs are bounded, and with
// it the peer has accepted.
func connects(dial func() (net.Conn, error)) (connect, trip time.Duration, err error) {
	var all, round []time.Duration
	for range rounds {
		at := time.Now()
		c, err := dial()
		if err != nil {
			return 0, 0, err
		}
		all = append(all, time.Since(at))
		for i := range 4 {
			d, err := oneTrip(c)
			if err != nil {
				return 0, 0, err
			}
			if i > 0 {
				round = append(round, d)
			}
		}
		c.Close()
	}
	return median(all), median(round), nil
}

// trips gives the median of round trips on one stream.
func trips(c io.ReadWriter) (time.Duration, error) {
	var all []time.Duration
	for range rounds {
		d, err := oneTrip(c)
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	return median(all), nil
}

func oneTrip(c io.ReadWriter) (time.Duration, error) {
	b := []byte{1}
	at := time.Now()
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, b)
	return time.Since(at), err
}

func median[T time.Duration | float64](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
