package vhostuser

import (
	"bufio"
	"bytes"
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
		_ = u.SetDeadline(time.Now().Add(30 * time.Second))
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
		_ = u.SetDeadline(time.Now().Add(30 * time.Second))
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

// A client that does not say what it wants, and one that the guest does not
// answer, have so much time and no more; others do not wait for them.
func TestHostLateClient(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	opts := linuxDriver
	opts.noRX = true // the guest never answers
	said := make(chan string, 10)
	d, _ := newGuest(t, Options{HostPath: path, Logf: func(f string, a ...any) { said <- fmt.Sprintf(f, a...) }}, opts)
	var clients []net.Conn
	for _, line := range []string{"CONN", "CONNECT 5000\n"} {
		u, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		fmt.Fprint(u, line)
		clients = append(clients, u)
	}
	settle(t, d, 1) // the second one's is asked for
	waiting := func() (n int) {
		d.host.mu.Lock()
		defer d.host.mu.Unlock()
		return len(d.host.news)
	}
	for end := time.Now().Add(10 * time.Second); waiting() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d clients wait", waiting())
		}
	}
	d.host.endLate() // it is early
	if n := waiting(); n != 2 {
		t.Errorf("%d clients wait, want 2", n)
	}
	d.host.mu.Lock()
	for cl := range d.host.news {
		cl.since = cl.since.Add(-clientWait)
	}
	d.host.mu.Unlock()
	d.host.endLate()
	for _, u := range clients {
		_ = u.SetDeadline(time.Now().Add(10 * time.Second))
		if n, err := u.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("a late client reads %d bytes, %v", n, err)
		}
		if text := <-said; !strings.Contains(text, errLate.Error()) {
			t.Errorf("the device says %q", text)
		}
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

// A program that reads slowly, and does not read at all for a while, gets every
// byte in order: past the reader, through the buffer, and as one becomes the other.
func TestHostSlowReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	d, g := newGuest(t, Options{HostPath: path, Buffer: 64 << 10}, linuxDriver)
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
	_ = u.SetDeadline(time.Now().Add(30 * time.Second))
	want := noise(4 << 20)
	go func() {
		for p := want; len(p) > 0; {
			n, err := gc.Write(p[:min(7001, len(p))])
			if err != nil {
				t.Error(err)
				return
			}
			p = p[n:]
		}
		gc.Close()
	}()
	// The socket is full, the reader has bytes in hand, more wait behind it.
	stuck := func() bool {
		d.m.mu.Lock()
		defer d.m.mu.Unlock()
		c := d.m.conns[key{50, 1234}]
		return c != nil && c.inHand && c.in.n > 0
	}
	for end := time.Now().Add(10 * time.Second); !stuck(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing waits for the reader")
		}
	}
	var got []byte
	for b := make([]byte, 64<<10); ; {
		n, err := u.Read(b[:1+len(got)%len(b)])
		if got = append(got, b[:n]...); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, or others", len(got), len(want))
	}
	u.Close()
	settle(t, d, 0)
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
	cl := &client{u: ours, line: make([]byte, 0, helloMax)}
	whole, err := false, error(nil)
	for range 3 { // what is there, if anything
		if whole, err = cl.readHello(false); err != nil {
			t.Fatal(err)
		}
	}
	if !whole {
		whole, err = cl.readHello(true)
	}
	if err != nil || !whole || string(cl.line) != "CONNECT 5000\n" {
		t.Errorf("%q, %v", cl.line, err)
	}
	if rest, err := io.ReadAll(ours); string(rest) != "not the line's\n" || err != nil {
		t.Errorf("%q is left, %v", rest, err)
	}
	if err := <-said; err != nil {
		t.Error(err)
	}
}
