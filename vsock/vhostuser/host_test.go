package vhostuser

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHostSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	d, g := newGuest(t, Options{HostPath: path}, linuxDriver)
	accepted := g.listen(5000)
	dial := func() *net.UnixConn {
		t.Helper()
		u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u
	}
	for _, tt := range []struct{ say, want string }{
		{"CONNECT 5000\n", "OK "},
		{"CONNECT 4999\n", ""}, // nobody listens
		{"CONNECT\n", ""},
		{"CONNECT 99999999999\n", ""},
		{"HELLO 5000\n", ""},
		{strings.Repeat("CONNECT ", 10), ""},
	} {
		u := dial()
		fmt.Fprint(u, tt.say)
		_ = u.SetReadDeadline(time.Now().Add(10 * time.Second))
		line, err := bufio.NewReader(u).ReadString('\n')
		if tt.want == "" {
			// What was not read makes the end of a Unix socket a reset.
			if line != "" || err == nil || os.IsTimeout(err) {
				t.Errorf("%q: %q %v", tt.say, line, err)
			}
			continue
		}
		if !strings.HasPrefix(line, tt.want) {
			t.Fatalf("%q: %q %v", tt.say, line, err)
		}
		_ = u.SetReadDeadline(time.Time{})
		swapBytes(t, u, <-accepted, noise(1<<20), 50_000)
	}
	settle(t, d, 0)

	// A client that is gone altogether is a closed connection for the guest.
	u := dial()
	fmt.Fprint(u, "CONNECT 5000\nlast words")
	gc := <-accepted
	if _, err := bufio.NewReader(u).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	u.Close()
	if b, err := io.ReadAll(gc); string(b) != "last words" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	settle(t, d, 0)
}

func TestHostForward(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	d, g := newGuest(t, Options{HostPath: path}, linuxDriver)
	l, err := net.Listen("unix", path+"_1234")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gc, err := g.dial(50, 1234)
	if err != nil {
		t.Fatal(err)
	}
	u, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	swapBytes(t, u.(*net.UnixConn), gc, noise(1<<20), 50_000)
	u.Close()
	if _, err := g.dial(51, 1235); err == nil {
		t.Error("connected to a socket that is not there")
	}
	settle(t, d, 0)

	// With the device go its sockets.
	if gc, err = g.dial(52, 1234); err != nil {
		t.Fatal(err)
	}
	if u, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	d.Close()
	if _, err := io.ReadAll(u); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// A second QEMU finds nobody.
func TestOneQEMU(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl")
	d, f := newDevice(t, Options{Socket: path})
	f.handshake()
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		t.Error("a second connection is taken")
	}
	if err := d.Err(); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "Socket or Conn"},
		{Options{Socket: dir + "/a", GuestCID: 2}, "CID 2"},
		{Options{Socket: dir + "/a", GuestCID: ^uint32(0)}, "CID 4294967295"},
		{Options{Socket: dir + "/a", Buffer: 1}, "buffer: 1 "},
		{Options{Socket: dir + "/a", Connections: -1}, "connections: -1 "},
		{Options{Socket: dir + "/a", Backlog: 1 << 20}, "backlog: 1048576 "},
		{Options{Socket: dir + "/no/a"}, "listen for QEMU"},
		{Options{Socket: dir + "/a", HostPath: dir + "/no/a"}, "listen for the host's programs"},
	} {
		if d, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.o, err)
			if err == nil {
				d.Close()
			}
		}
	}
	// Closed before QEMU came.
	d, err := New(Options{Socket: dir + "/b", HostPath: dir + "/c"})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	d.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Error(left)
	}
}

// The first line may come in pieces, and what follows it is not the line's.
func TestHelloInPieces(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := unixConn(t, fds[0]), unixConn(t, fds[1])
	defer ours.Close()
	defer theirs.Close()
	said := make(chan error, 1)
	go func() {
		for _, piece := range []string{"C", "ONNECT ", "50", "00\nnot the line's\n"} {
			if _, err := theirs.Write([]byte(piece)); err != nil {
				said <- err
				return
			}
			time.Sleep(time.Millisecond) // so that they are pieces, mostly
		}
		said <- theirs.Close()
	}()
	port, err := readHello(ours)
	if err != nil || port != 5000 {
		t.Errorf("port %d, %v", port, err)
	}
	if rest, err := io.ReadAll(ours); string(rest) != "not the line's\n" || err != nil {
		t.Errorf("%q is left, %v", rest, err)
	}
	if err := <-said; err != nil {
		t.Error(err)
	}
}
