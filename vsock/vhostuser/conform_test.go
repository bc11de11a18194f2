package vhostuser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/guestinit/guestinit/vsock"
)

// relay joins two ends of connections, as a program between them does.
func relay(a, b halfCloser) {
	var both sync.WaitGroup
	for _, way := range [][2]halfCloser{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(struct{ io.Writer }{way[0]}, struct{ io.Reader }{way[1]})
			_ = way[0].CloseWrite()
		})
	}
	both.Wait()
	a.Close()
	b.Close()
}

// Connections of the device do what everybody expects of a net.Conn. Both ends
// are the host's: a program in the guest joins them.
func TestConnConforms(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	l := g.listen(77)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		var ends []net.Conn
		var theirs []halfCloser
		for range 2 {
			c, err := d.Dial(testContext(t), 77)
			if err != nil {
				return nil, nil, nil, err
			}
			ends, theirs = append(ends, c), append(theirs, <-l)
		}
		go relay(theirs[0], theirs[1])
		return ends[0], ends[1], func() { ends[0].Close(); ends[1].Close() }, nil
	})
	settle(t, d, 0)
}

// guestConforms does the same in a guest, to sockets of its kernel that the host
// joins, and answers with what came of it.
func guestConforms(c net.Conn) {
	flag.Parse()
	all := func(string, string) (bool, error) { return true, nil }
	fmt.Fprint(c, testing.RunTests(all, []testing.InternalTest{
		{Name: "Conn", F: guestConns}, {Name: "Listener", F: guestListeners}, {Name: "Dial", F: guestDials},
	}))
}

func guestConns(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		var ends [2]*vsock.Conn
		for i := range ends {
			var err error
			if ends[i], err = guestConnect(portJoin); err != nil {
				return nil, nil, nil, err
			}
		}
		return ends[0], ends[1], func() { ends[0].Close(); ends[1].Close() }, nil
	})
}

// hasError checks that an error is a *net.OpError of op that matches want.
func hasError(t *testing.T, err error, op string, want error) {
	t.Helper()
	var oe *net.OpError
	if !errors.As(err, &oe) || oe.Op != op || oe.Net != "vsock" || !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", op, err, want)
	}
}

func guestListeners(t *testing.T) {
	l, err := vsock.Listen(vsock.CIDAny, 0)
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(vsock.Addr).Port
	if port == 0 || port == ^uint32(0) {
		t.Errorf("listens on %v", l.Addr())
	}
	_, err = vsock.Listen(vsock.CIDAny, port)
	hasError(t, err, "listen", syscall.EADDRINUSE)
	for _, when := range []time.Time{time.Unix(1, 0), time.Now().Add(20 * time.Millisecond)} {
		if err := l.SetDeadline(when); err != nil {
			t.Error(err)
		}
		_, err = l.Accept()
		hasError(t, err, "accept", os.ErrDeadlineExceeded)
	}
	if err := l.SetDeadline(time.Time{}); err != nil {
		t.Error(err)
	}
	accepted := make(chan error)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	time.Sleep(20 * time.Millisecond) // so that it waits, mostly
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	hasError(t, <-accepted, "accept", net.ErrClosed)
	hasError(t, l.Close(), "close", net.ErrClosed)
}

func guestDials(t *testing.T) {
	_, err := vsock.Dial(t.Context(), vsock.CIDHost, portNobody)
	hasError(t, err, "dial", syscall.ECONNRESET)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = vsock.Dial(ctx, vsock.CIDHost, portPong)
	hasError(t, err, "dial", context.Canceled)
}

// conforms has the guest test its sockets. The host joins each two that come.
func (v *vm) conforms() {
	pending := make(chan net.Conn, 1)
	v.serve(portJoin, func(c net.Conn) {
		select {
		case first := <-pending:
			relay(first.(halfCloser), c.(halfCloser))
		case pending <- c:
		}
	})
	c := v.dial(portConform)
	defer c.Close()
	if said, err := io.ReadAll(c); err != nil || string(said) != "true" {
		v.t.Errorf("sockets in the guest: %s, %v", said, err)
	}
}
