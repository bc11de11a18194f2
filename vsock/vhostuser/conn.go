package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Addr is one end of a connection.
type Addr struct {
	CID  uint32 // 2 is the host
	Port uint32
}

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns "CID:PORT".
func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// Conn is the host's end of a connection with the guest. Several goroutines
// may use it at the same time. Errors are of type *net.OpError and match, as
// the case may be, net.ErrClosed, os.ErrDeadlineExceeded, syscall.ECONNRESET,
// ECONNREFUSED, EPIPE, or the errors of this package.
type Conn struct {
	m   *mux
	key key

	// Guarded by m.mu.
	s        stream
	in       buffer
	sink     sink   // takes bytes while the reader has none in hand; nil for none
	inHand   bool   // the reader took bytes that are not in the sink yet
	out      []byte // the rest of the Write under way: its caller's memory
	queued   bool   // in m.ready
	next     *Conn
	closed   bool // by our user
	released bool
	closedAt time.Time       // when it began to wait for the guest's answer to its end
	answered func(err error) // told, once, what came of our request; nil for none

	rmu, wmu            sync.Mutex    // one reader, one writer at a time
	readWake, writeWake chan struct{} // capacity 1
	rdead, wdead        deadline
}

var _ net.Conn = (*Conn)(nil)

// wake wakes the one that waits on c, now or later.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// apply does what an event asks for. The caller holds m.mu.
func (c *Conn) apply(ev event) {
	if ev&(eventOpen|eventEnd) != 0 && c.answered != nil {
		tell := c.answered
		c.answered = nil
		tell(c.dialError())
	}
	if ev&(eventData|eventEnd) != 0 {
		wake(c.readWake)
	}
	if ev&eventEnd != 0 {
		wake(c.writeWake)
	}
	c.m.schedule(c)
}

// Read reads what the guest sent. It returns io.EOF after the guest's shutdown
// or close, and ECONNRESET after a reset; in each case after all bytes that
// came before it.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for {
		if c.rdead.over() {
			return 0, c.error("read", os.ErrDeadlineExceeded)
		}
		n, wait, err := c.read(p)
		if err == io.EOF {
			return n, err
		}
		if !wait {
			return n, c.error("read", err)
		}
		select {
		case <-c.readWake:
		case <-c.rdead.wait():
		}
	}
}

func (c *Conn) read(p []byte) (n int, wait bool, err error) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	switch {
	case c.closed:
		return 0, false, net.ErrClosed
	case c.s.localShut&shutReceive != 0:
		return 0, false, io.EOF
	case len(p) == 0:
		return 0, false, nil
	case c.in.n > 0:
		n = c.in.read(p)
		c.inHand = true
		c.s.take(uint32(n))
		if c.s.due != 0 {
			c.m.schedule(c)
			c.m.kick()
		}
		return n, false, nil
	case c.s.peerShut&shutSend != 0:
		return 0, false, io.EOF
	case c.s.state == stateDone:
		return 0, false, c.s.err
	}
	c.inHand = false
	return 0, true, nil
}

// deliver takes in n bytes of the guest, from the front of bufs: what the sink
// does not take waits for the reader. It tells whether that is anything. The
// caller holds m.mu.
func (c *Conn) deliver(bufs [][]byte, n int) (wait bool) {
	c.m.stats.BytesIn += uint64(n)
	if c.sink != nil && !c.inHand && c.in.n == 0 {
		sent := c.sink(bufs, n)
		c.s.take(uint32(sent))
		if sent == n {
			return false
		}
		bufs, n = skip(bufs, sent), n-sent
	}
	c.in.fill(bufs, n)
	return true
}

// Write sends p. It returns when the guest's driver has all of it, which is not
// to say its program. It returns EPIPE if the guest takes no more.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.wdead.over() {
		return 0, c.error("write", os.ErrDeadlineExceeded)
	}
	c.m.mu.Lock()
	if err := c.writeError(); err != nil || len(p) == 0 {
		c.m.mu.Unlock()
		return 0, c.error("write", err)
	}
	c.out = p
	c.m.schedule(c)
	c.m.kick()
	err := c.writeError()
	for len(c.out) > 0 && err == nil {
		c.m.mu.Unlock()
		select {
		case <-c.writeWake:
		case <-c.wdead.wait():
			err = os.ErrDeadlineExceeded
		}
		c.m.mu.Lock()
		if e := c.writeError(); e != nil {
			err = e
		}
	}
	left := len(c.out)
	c.out = nil // p is the caller's again
	c.m.mu.Unlock()
	if left == 0 {
		err = nil
	}
	return len(p) - left, c.error("write", err)
}

// writeError says why nothing can be written, or nil. The caller holds m.mu.
func (c *Conn) writeError() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.s.writable():
		return nil
	case c.s.err != nil:
		return c.s.err
	}
	return syscall.EPIPE
}

// Close ends the connection in both directions. What was written before
// arrives; what was not read is lost.
func (c *Conn) Close() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.closed {
		return c.error("close", net.ErrClosed)
	}
	c.close(func() { c.s.close(shutBoth) })
	return nil
}

// Reset ends the connection at once: the guest's program is told of no orderly
// end. It is for peers of peers that vanished.
func (c *Conn) Reset() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.closed {
		return c.error("close", net.ErrClosed)
	}
	c.close(func() {
		if c.s.state != stateDone {
			c.s.fail(nil)
		}
	})
	return nil
}

// close takes the connection from its user. The caller holds m.mu.
func (c *Conn) close(end func()) {
	c.closed = true
	c.in = buffer{}
	end()
	c.m.awaitEnd(c)
	known := c.m.conns[c.key] == c
	c.apply(eventEnd)
	if !known {
		c.m.forget(c) // it was over before
	}
	c.m.kick()
}

// CloseWrite tells the guest that no more bytes come.
func (c *Conn) CloseWrite() error { return c.shutdown(shutSend) }

// CloseRead tells the guest that no more bytes are taken; what is on its way is
// dropped.
func (c *Conn) CloseRead() error { return c.shutdown(shutReceive) }

func (c *Conn) shutdown(direction uint32) error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	switch {
	case c.closed:
		return c.error("close", net.ErrClosed)
	case c.s.state == stateDone && c.s.err != nil:
		return c.error("close", c.s.err)
	}
	c.s.close(direction)
	if direction == shutReceive {
		c.s.take(uint32(c.in.n))
		c.in = buffer{}
	}
	c.m.awaitEnd(c)
	c.apply(eventEnd)
	c.m.kick()
	return nil
}

// LocalAddr returns the host's end.
func (c *Conn) LocalAddr() net.Addr { return Addr{hostCID, c.key.host} }

// RemoteAddr returns the guest's end.
func (c *Conn) RemoteAddr() net.Addr { return Addr{uint32(c.m.cid), c.key.guest} }

// SetDeadline sets both deadlines. The error is always nil.
func (c *Conn) SetDeadline(t time.Time) error {
	c.rdead.set(t)
	c.wdead.set(t)
	return nil
}

// SetReadDeadline limits Read, also one that waits. The error is always nil.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.rdead.set(t)
	return nil
}

// SetWriteDeadline limits Write, also one that waits. The error is always nil.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.wdead.set(t)
	return nil
}

// error is the one way by which errors leave a connection.
func (c *Conn) error(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.As(err, new(syscall.Errno)) {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// dial opens a connection to a port of the guest.
func (m *mux) dial(ctx context.Context, port uint32) (*Conn, error) {
	answer := make(chan error, 1)
	c, err := m.startDial(port, func(_ *Conn, err error) { answer <- err })
	if err != nil {
		return nil, err
	}
	select {
	case err = <-answer:
	case <-ctx.Done():
		m.giveUp(c)
		if err = <-answer; err != nil {
			err = c.error("dial", context.Cause(ctx))
		}
	}
	if err != nil {
		_ = c.Reset()
		return nil, err
	}
	return c, nil
}

// startDial asks the guest for a connection. Its answer goes to answered, which is
// called once, with mu held, and perhaps before startDial returns; not if that
// returns an error.
func (m *mux) startDial(port uint32, answered func(c *Conn, err error)) (*Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused := func(err error) error {
		return &net.OpError{Op: "dial", Net: "vsock", Addr: Addr{uint32(m.cid), port}, Err: err}
	}
	if m.closed != nil {
		return nil, refused(m.closed)
	}
	if m.live >= m.limit {
		return nil, refused(fmt.Errorf("%d connections are open, the most that may be: %w", m.live, syscall.ENOBUFS))
	}
	k := key{guest: port}
	k.host = m.freePort(func(p uint32) bool { return m.conns[key{port, p}] != nil })
	c := m.newConn(k, stateAsking)
	c.answered = func(err error) { answered(c, err) }
	c.s.due = dueRequest
	m.schedule(c)
	m.kick()
	return c, nil
}

// giveUp ends a connection that the guest was asked for, if it has not answered.
func (m *mux) giveUp(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.s.state == stateAsking {
		c.s.close(shutBoth)
		c.apply(eventEnd)
		m.kick()
	}
}

// dialError says what came of our request for a connection: nil where the guest
// took it.
func (c *Conn) dialError() error {
	switch {
	case c.s.state == stateOpen:
		c.m.stats.Opened++
		return nil
	case c.s.err != nil:
		return c.error("dial", c.s.err)
	}
	return c.error("dial", net.ErrClosed)
}
