package vhostuser

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/vsock"
)

// The guest's side of the tests with real guests: this test binary as /init.

// Services that the guest offers, by port.
const (
	portSink    = 5001 // hashes what comes, answers with the hash
	portSource  = 5002 // is told a count, sends so many bytes, closes
	portEcho    = 5003
	portDial    = 5004 // is told an order, connects to the host and sends
	portOff     = 5005 // powers off
	portBench   = 5006 // measures from the guest, answers with text
	portHang    = 5007 // takes connections and never reads
	portShort   = 5008 // takes 1000 bytes and closes
	portDrain   = 5009 // reads what bulk sends, says so
	portSocat   = 5010 // is told arguments, runs socat with them
	portSerial  = 5011 // moves bytes through the virtio-serial port
	portConform = 5012 // tests the sockets of the guest
	portReady   = 6000 // of the host: the guest says that it is up
	portBack    = 6001 // of the host: what portDial connects to
	portPong    = 6002 // of the host: echo
	portEmpty   = 6003 // of the host: like portDrain
	portJoin    = 6004 // of the host: joins each two connections
	portNobody  = 6999 // of the host: nobody listens
)

// order tells the guest to connect to portBack and send.
type order struct{ Total, Size, Seed uint64 }

// TestMain runs the tests, or the guest's side of them.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		guestMain()
	}
	if r, w, err := os.Pipe(); err == nil { // the poller opens descriptors of its own
		r.Close()
		w.Close()
	}
	before := openFiles()
	code := m.Run()
	if code == 0 && !flag.Lookup("test.fuzzworker").Value.(flag.Getter).Get().(bool) {
		if after := openFiles(); len(after) > len(before) {
			fmt.Printf("descriptors left open: %q, before: %q\n", after, before)
			code = 1
		}
	}
	os.Exit(code)
}

// openFiles are what the descriptors of this process lead to, but for the
// poller's own.
func openFiles() (names []string) {
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		name, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && name != "anon_inode:[eventpoll]" && !strings.HasPrefix(name, "/proc/") {
			names = append(names, name)
		}
	}
	return names
}

func guestMain() {
	defer func() {
		fmt.Println("guest: power off:", recover())
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for _, m := range [][2]string{{"proc", "/proc"}, {"devtmpfs", "/dev"}} {
		check(os.MkdirAll(m[1], 0o755))
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			panic(err)
		}
	}
	check(guestModules())
	off := make(chan struct{})
	services := map[uint32]func(net.Conn){
		portSink: guestSink, portSource: guestSource, portDial: guestDial, portBench: guestBench,
		portEcho:  func(c net.Conn) { _, _ = io.Copy(c, c) },
		portShort: func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 1000)) },
		portDrain: drain, portSocat: guestSocat, portSerial: guestSerial,
		portHang: func(net.Conn) { select {} }, portConform: guestConforms,
		portOff: func(net.Conn) { close(off) },
	}
	for port, serve := range services {
		l, err := vsock.Listen(vsock.CIDAny, port)
		check(err)
		go func() {
			for {
				c, err := l.Accept()
				check(err)
				go func() {
					serve(c)
					c.Close()
				}()
			}
		}()
	}
	c, err := guestConnect(portReady)
	check(err)
	cid, err := vsock.LocalCID()
	check(err)
	fmt.Fprintf(c, "%s %s %d\n", c.LocalAddr(), c.RemoteAddr(), cid)
	<-off
}

// guestModules loads the modules of the image.
func guestModules() error {
	list, err := os.Open("/etc/guestinit/modules")
	if err != nil {
		return err
	}
	for s := bufio.NewScanner(list); s.Scan(); {
		_, path, ok := strings.Cut(s.Text(), " ")
		if !ok || strings.HasPrefix(s.Text(), "#") {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: %w", path, err)
		}
		f.Close()
	}
	return nil
}

// guestConnect connects to the host, which may not be there yet.
func guestConnect(port uint32) (*vsock.Conn, error) {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		c, err := vsock.Dial(ctx, vsock.CIDHost, port)
		cancel()
		if err == nil || time.Now().After(end) {
			return c, err
		}
	}
}

// bulkBytes is how much goes each way to measure throughput. The receiver
// counts: not every device passes a half-close on.
const bulkBytes = 64 << 20

// drain reads that much and says that it is there.
func drain(c net.Conn) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, bulkBytes), make([]byte, 256<<10))
	_, _ = c.Write([]byte{1})
	_, _ = c.Read(make([]byte, 1))
	c.Close()
}

func guestSink(c net.Conn) {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, c, make([]byte, 256<<10)); err != nil {
		fmt.Println("guest: sink:", err)
	}
	_, _ = c.Write(h.Sum(nil))
}

// guestSocat runs socat, of the image.
func guestSocat(c net.Conn) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		fmt.Println("guest: socat:", err)
		return
	}
	out, err := exec.Command("/usr/bin/socat", strings.Fields(line)...).CombinedOutput()
	fmt.Fprintf(c, "%s%v", out, err)
}

// testBytes is total bytes that follow from a seed.
func testBytes(seed, total uint64) io.Reader {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	return io.LimitReader(rand.NewChaCha8(s), int64(total))
}

// pump writes what r has, size bytes at a time.
func pump(w io.Writer, r io.Reader, size uint64) error {
	b := make([]byte, size)
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func guestSource(c net.Conn) {
	var o order
	if err := binary.Read(c, binary.LittleEndian, &o); err != nil {
		fmt.Println("guest: source:", err)
		return
	}
	if err := pump(c, testBytes(o.Seed, o.Total), o.Size); err != nil {
		fmt.Println("guest: source:", err)
	}
}

// guestDial sends as ordered, half-closes, and passes the host's answer back.
func guestDial(c net.Conn) {
	var o order
	if err := binary.Read(c, binary.LittleEndian, &o); err != nil {
		fmt.Println("guest: dial:", err)
		return
	}
	up, err := guestConnect(portBack)
	if err != nil {
		fmt.Fprintf(c, "connect: %v", err)
		return
	}
	defer up.Close()
	if err := pump(up, testBytes(o.Seed, o.Total), o.Size); err != nil {
		fmt.Fprintf(c, "write: %v", err)
		return
	}
	if err := up.CloseWrite(); err != nil {
		fmt.Fprintf(c, "shutdown: %v", err)
		return
	}
	answer, err := io.ReadAll(up)
	fmt.Fprintf(c, "%x %v", answer, err)
}

// measure gives medians of connects and of round trips of one byte.
func measure(dial func() (socket, error)) (connect, trip time.Duration, err error) {
	const rounds = 300
	var connects, trips []time.Duration
	for range rounds {
		at := time.Now()
		c, err := dial()
		if err != nil {
			return 0, 0, err
		}
		connects = append(connects, time.Since(at))
		// Backlogs are bounded: wait until the peer has accepted.
		for b, i := []byte{1}, 0; i < 4; i++ {
			at := time.Now()
			if _, err = c.Write(b); err == nil {
				_, err = io.ReadFull(c, b)
			}
			if err != nil {
				return 0, 0, err
			}
			if i > 0 {
				trips = append(trips, time.Since(at))
			}
		}
		c.Close()
	}
	slices.Sort(connects)
	slices.Sort(trips)
	return connects[len(connects)/2], trips[len(trips)/2], nil
}

// guestSerial sends 64 MiB through the virtio-serial port in writes of the size
// that it is told, reads as many, and measures round trips.
func guestSerial(c net.Conn) {
	err := func() error {
		var size uint64
		if err := binary.Read(c, binary.LittleEndian, &size); err != nil {
			return err
		}
		names, _ := filepath.Glob("/dev/vport*p1")
		if len(names) != 1 {
			return fmt.Errorf("ports: %v", names)
		}
		fd, err := unix.Open(names[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		port := os.NewFile(uintptr(fd), "port")
		defer port.Close()
		b := make([]byte, size)
		for left := bulkBytes; left > 0; left -= len(b) {
			if _, err := port.Write(b[:min(len(b), left)]); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(io.Discard, port, bulkBytes); err != nil {
			return err
		}
		_, err = c.Write([]byte{1})
		var trips []time.Duration
		for b := []byte{1}; err == nil && len(trips) < 300; {
			at := time.Now()
			if _, err = port.Write(b); err == nil {
				_, err = io.ReadFull(port, b)
			}
			trips = append(trips, time.Since(at))
		}
		slices.Sort(trips)
		fmt.Fprintf(c, "round trip %v", trips[len(trips)/2])
		return err
	}()
	if err != nil {
		fmt.Fprint(c, err)
	}
}

// guestBench measures from the guest, with writes of the size it is told.
func guestBench(c net.Conn) {
	var size uint64
	err := binary.Read(c, binary.LittleEndian, &size)
	if err != nil {
		fmt.Println("guest: bench:", err)
		return
	}
	dial := func(port uint32) func() (socket, error) {
		return func() (socket, error) { return vsock.Dial(context.Background(), vsock.CIDHost, port) }
	}
	up, err := dial(portEmpty)()
	if err != nil {
		fmt.Fprint(c, err)
		return
	}
	defer up.Close()
	at := time.Now()
	if err := bulk(up, int(size)); err != nil {
		fmt.Fprint(c, err)
		return
	}
	fmt.Fprintf(c, "%.0f MiB/s", 64/time.Since(at).Seconds())
	connect, trip, err := measure(dial(portPong))
	fmt.Fprintf(c, ", connect %v, round trip %v, %v", connect, trip, err)
}

// bulk sends in writes of size and waits until the peer has read everything.
func bulk(c socket, size int) error {
	b := make([]byte, size)
	for left := bulkBytes; left > 0; left -= size {
		if _, err := c.Write(b[:min(size, left)]); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c, b[:1])
	return err
}
