package vhostuser

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// drivers are the ways in which drivers of Linux use the rings.
var drivers = []struct {
	name string
	opts driverOptions
}{
	{"indirect, event index", linuxDriver},
	{"plain", driverOptions{features: featVersion1 | featProtocol}},
	{"two descriptors, without protocol features", driverOptions{features: featVersion1 | featEventIdx, twoDescs: true}},
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// pair connects the guest with the host, from either side.
func pair(t testing.TB, d *Device, g *guest, fromGuest bool) (*Conn, *guestConn) {
	t.Helper()
	if fromGuest {
		l, err := d.Listen(0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		gc, err := g.dial(1000, l.Addr().(Addr).Port)
		if err != nil {
			t.Fatal(err)
		}
		hc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return hc.(*Conn), gc
	}
	l := g.listen(77)
	hc, err := d.Dial(testContext(t), 77)
	if err != nil {
		t.Fatal(err)
	}
	return hc, <-l
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// swapBytes sends want in both directions at once, in writes of size bytes, and
// checks what arrives. Each side ends with a half-close.
func swapBytes(t testing.TB, a, b halfCloser, want []byte, size int) {
	t.Helper()
	var all sync.WaitGroup
	for _, c := range []halfCloser{a, b} {
		all.Go(func() {
			for p := want; len(p) > 0; {
				n, err := c.Write(p[:min(size, len(p))])
				if err != nil {
					t.Errorf("%T: write: %v", c, err)
					return
				}
				p = p[n:]
			}
			if err := c.CloseWrite(); err != nil {
				t.Errorf("%T: %v", c, err)
			}
		})
		all.Go(func() {
			got, err := io.ReadAll(c)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
				t.Errorf("%T: read %d bytes of %d: %v", c, len(got), len(want), err)
			}
		})
	}
	all.Wait()
}

// settle waits until the device has n connections.
func settle(t testing.TB, d *Device, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if s := d.Stats(); s.Connections == n {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%d connections, want %d", s.Connections, n)
		}
	}
}

func TestTransfer(t *testing.T) {
	want := noise(3<<20 + 7)
	for _, drv := range drivers {
		for _, fromGuest := range []bool{true, false} {
			for _, size := range []int{100_003, 1 << 20} {
				t.Run(fmt.Sprintf("%s/guest %v/%d", drv.name, fromGuest, size), func(t *testing.T) {
					d, g := newGuest(t, Options{}, drv.opts)
					hc, gc := pair(t, d, g, fromGuest)
					swapBytes(t, hc, gc, want, size)
					hc.Close()
					gc.Close()
					settle(t, d, 0)
				})
			}
		}
	}
}

func TestManyConnections(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	l, err := d.Listen(9)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // echo
				_, _ = io.Copy(c, c)
				_ = c.(*Conn).CloseWrite()
			}()
		}
	}()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			c, err := g.dial(uint32(2000+i), 9)
			if err != nil {
				t.Error(err)
				return
			}
			want := noise(200_000 + i)
			go func() {
				_, _ = c.Write(want)
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("connection %d: %d bytes of %d: %v", i, len(got), len(want), err)
			}
		})
	}
	all.Wait()
}

// A connection that moves much does not keep the others from moving.
func TestFairness(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	l := g.listen(77)
	dial := func() (*Conn, *guestConn) {
		c, err := d.Dial(testContext(t), 77)
		if err != nil {
			t.Fatal(err)
		}
		return c, <-l
	}
	busy, sink := dial()
	quiet, echo := dial()
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for block := noise(1 << 20); !isClosed(stop); {
			if _, err := busy.Write(block); err != nil {
				t.Error(err)
			}
		}
		busy.Close()
	})
	all.Go(func() { _, _ = io.Copy(io.Discard, sink) })
	all.Go(func() { _, _ = io.Copy(echo, echo) })
	for i := range byte(200) {
		b := []byte{i}
		if _, err := quiet.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(quiet, b); err != nil || b[0] != i {
			t.Fatal(b, err)
		}
	}
	quiet.Close()
	close(stop)
	all.Wait()
}

// Round robin, seen in the ring: two writers with much to send take turns.
func TestTurns(t *testing.T) {
	m := &mux{conns: map[key]*Conn{}, limit: 10, bufAlloc: 1 << 16, cid: 3, logf: t.Logf}
	for i := range uint32(3) {
		c := m.newConn(key{i, 1}, stateOpen)
		c.s.peerAlloc = 1 << 20
		c.out = make([]byte, 10_000)
		m.schedule(c)
	}
	var got []uint32
	for m.pruneReady() {
		b := make([]byte, headerBytes+4000)
		m.fillPacket(&chain{in: [][]byte{b}, inBytes: uint64(len(b))})
		h := parsePacket((*[headerBytes]byte)(b))
		got = append(got, h.dstPort)
	}
	if fmt.Sprint(got) != "[0 1 2 0 1 2 0 1 2]" {
		t.Error(got)
	}
}

func TestDialRefused(t *testing.T) {
	d, _ := newGuest(t, Options{}, linuxDriver)
	_, err := d.Dial(testContext(t), 5)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	settle(t, d, 0)
}

// A connection asked for before the driver is up is made when it is.
func TestDialBeforeDriver(t *testing.T) {
	d, f := newDevice(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(ctx, 77); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	settle(t, d, 0)

	g := &guest{frontEnd: f, opts: linuxDriver}
	g.cond.L = &g.mu
	result := make(chan error, 1)
	go func() {
		c, err := d.Dial(testContext(t), 5)
		if err == nil {
			c.Close()
		}
		result <- err
	}()
	settle(t, d, 1)
	f.handshake()
	g.boot()
	defer g.halt()
	if err := <-result; !errors.Is(err, syscall.ECONNREFUSED) { // from the guest
		t.Error(err)
	}
}

func TestDialCancelled(t *testing.T) {
	opts := linuxDriver
	opts.noRX = true // the guest never hears of it
	d, _ := newGuest(t, Options{}, opts)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(ctx, 77); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	settle(t, d, 0)
}

func TestGuestDialRefused(t *testing.T) {
	d, g := newGuest(t, Options{Connections: 2, Backlog: 1}, linuxDriver)
	if _, err := g.dial(1, 5); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no listener: %v", err)
	}
	l, err := d.Listen(5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.dial(2, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dial(3, 5); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("backlog full: %v", err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.dial(4, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dial(5, 5); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("too many connections: %v", err)
	}
	if _, err := d.Dial(testContext(t), 1); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("too many connections: %v", err)
	}
	c.Close()
	settle(t, d, 1)
	if _, err := g.dial(6, 5); err != nil {
		t.Errorf("after a close: %v", err)
	}
	if s := d.Stats(); s.Opened != 3 || s.Refused != 3 {
		t.Errorf("%+v", s)
	}
}

func TestHalfClose(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	if _, err := hc.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := hc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := hc.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	if b, err := io.ReadAll(gc); err != nil || string(b) != "question" {
		t.Fatalf("%q %v", b, err)
	}
	if _, err := gc.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	gc.Close()
	if b, err := io.ReadAll(hc); err != nil || string(b) != "answer" {
		t.Errorf("%q %v", b, err)
	}
	if err := hc.Close(); err != nil {
		t.Error(err)
	}
	settle(t, d, 0)
}

func TestCloseRead(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	if err := hc.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if n, err := hc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		if _, err := gc.Write(make([]byte, 100_000)); errors.Is(err, syscall.EPIPE) {
			break
		} else if err != nil || time.Now().After(end) {
			t.Fatalf("the guest goes on writing: %v", err)
		}
	}
	if _, err := hc.Write([]byte("still")); err != nil {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	if _, err := gc.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	gc.reset()
	b, err := io.ReadAll(hc)
	if string(b) != "last words" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q %v", b, err)
	}
	if _, err := hc.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write: %v", err)
	}
	hc.Close()
	settle(t, d, 0)

	// The other way, with a write under way on each side.
	hc, gc = pair(t, d, g, false)
	writes := make(chan error, 2)
	go func() {
		_, err := hc.Write(make([]byte, 1<<20))
		writes <- err
	}()
	go func() {
		_, err := gc.Write(make([]byte, 1<<20))
		writes <- err
	}()
	time.Sleep(5 * time.Millisecond)
	_ = hc.Reset()
	for range 2 {
		if err := <-writes; err == nil {
			t.Error("a write of 1 MiB fits into nothing")
		}
	}
	settle(t, d, 0)
}

// The guest never confirms a close: the connection ends all the same.
func TestCloseUnconfirmed(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, _ := pair(t, d, g, true)
	g.mu.Lock() // deaf
	hc.Close()
	d.m.expire(0)
	g.mu.Unlock()
	settle(t, d, 0)
}

func TestUserErrors(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, _ := pair(t, d, g, true)
	if n, err := hc.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := hc.Write(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := hc.Read(make([]byte, 1))
		read <- err
	}()
	hc.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	calls := map[string]func() error{
		"read":       func() error { _, err := hc.Read(make([]byte, 1)); return err },
		"write":      func() error { _, err := hc.Write(make([]byte, 1)); return err },
		"close":      hc.Close,
		"reset":      hc.Reset,
		"closewrite": hc.CloseWrite,
		"closeread":  hc.CloseRead,
	}
	for name, f := range calls {
		var op *net.OpError
		if err := f(); !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) || op.Addr.String() != "3:1000" || op.Net != "vsock" {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, err := d.Listen(5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Listen(5); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
	l.Close()
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestDeadlines(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	past, soon := time.Unix(1, 0), func() time.Time { return time.Now().Add(10 * time.Millisecond) }
	timedOut := func(what string, err error) {
		t.Helper()
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, when := range []time.Time{past, soon()} {
		_ = hc.SetDeadline(when)
		_, err := hc.Read(make([]byte, 1))
		timedOut("read", err)
		var n int
		for n = 1; err == nil || n > 0; { // until the guest's buffer is full
			n, err = hc.Write(make([]byte, 64<<10))
		}
		timedOut("write", err)
	}
	// Lifted, everything goes on; bytes of writes that timed out are not doubled.
	_ = hc.SetDeadline(time.Time{})
	go func() { _, _ = gc.Write([]byte("x")) }()
	if _, err := io.ReadFull(hc, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	g.mu.Lock()
	queued := gc.in.Len()
	g.mu.Unlock()
	if queued > guestAlloc {
		t.Errorf("%d bytes in the guest's buffer of %d", queued, guestAlloc)
	}
	// A deadline set while a read waits.
	read := make(chan error, 1)
	go func() {
		_, err := hc.Read(make([]byte, 1))
		read <- err
	}()
	_ = hc.SetReadDeadline(soon())
	timedOut("waiting read", <-read)

	l, err := d.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.(*Listener).SetDeadline(soon())
	_, err = l.Accept()
	timedOut("accept", err)
}

// What was written before a deadline passed counts, once.
func TestPartialWrite(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	want := noise(2 << 20)
	go func() {
		for sent := 0; sent < len(want); {
			_ = hc.SetWriteDeadline(time.Now().Add(time.Millisecond))
			n, err := hc.Write(want[sent:])
			if sent += n; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
				break
			}
		}
		_ = hc.CloseWrite()
	}()
	var got bytes.Buffer
	for {
		b := make([]byte, 30_000)
		n, err := gc.Read(b)
		got.Write(b[:n])
		if err != nil {
			break
		}
		time.Sleep(time.Millisecond / 4)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes of %d, or others", got.Len(), len(want))
	}
}

func TestConcurrentUse(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	go func() { _, _ = io.Copy(gc, gc) }()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				_ = hc.SetDeadline(time.Now().Add(10 * time.Millisecond))
				_ = hc.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = hc.Write(make([]byte, 1024))
				_, _ = hc.Read(make([]byte, 1024))
				_ = hc.LocalAddr().String() + hc.RemoteAddr().Network()
			}
		})
	}
	all.Wait()
	for i := range 4 {
		all.Go(func() {
			if i%2 == 0 {
				_ = hc.CloseWrite()
			}
			_ = hc.Close()
		})
	}
	all.Wait()
}
