package vhostuser

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Listener takes the connections that the guest makes to one port of the host.
type Listener struct {
	m       *mux
	port    uint32
	backlog chan *Conn
	dead    deadline
	done    chan struct{}
	once    sync.Once
	err     error // set before done is closed
}

var _ net.Listener = (*Listener)(nil)

// listen begins to take connections to port; 0 picks one.
func (m *mux) listen(port uint32, backlog int) (*Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := func(p uint32) bool { return m.listeners[p] != nil }
	if port == 0 {
		port = m.freePort(used)
	}
	l := &Listener{m: m, port: port, backlog: make(chan *Conn, backlog), done: make(chan struct{})}
	switch {
	case m.closed != nil:
		return nil, l.error("listen", m.closed)
	case used(port):
		return nil, l.error("listen", syscall.EADDRINUSE)
	}
	m.listeners[port] = l
	return l, nil
}

// offer puts a connection into the backlog, if there is room.
func (l *Listener) offer(c *Conn) bool {
	select {
	case l.backlog <- c:
		return true
	default:
		return false
	}
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	if l.dead.over() {
		return nil, l.error("accept", os.ErrDeadlineExceeded)
	}
	select {
	case <-l.done: // first: after Close nothing is accepted
		return nil, l.error("accept", l.err)
	default:
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, l.error("accept", l.err)
	case <-l.dead.wait():
		return nil, l.error("accept", os.ErrDeadlineExceeded)
	}
}

// Close stops listening and ends the connections that nobody accepted.
func (l *Listener) Close() error {
	l.m.mu.Lock()
	if l.m.listeners[l.port] == l {
		delete(l.m.listeners, l.port)
	}
	l.m.mu.Unlock() // offer is called with it held: no connection comes after this
	if !l.end(net.ErrClosed) {
		return l.error("close", net.ErrClosed)
	}
	for {
		select {
		case c := <-l.backlog:
			_ = c.Reset()
		default:
			return nil
		}
	}
}

// end makes Accept return err, once.
func (l *Listener) end(err error) (first bool) {
	l.once.Do(func() {
		l.err, first = err, true
		close(l.done)
	})
	return first
}

// Addr returns the host's CID and the port.
func (l *Listener) Addr() net.Addr { return Addr{hostCID, l.port} }

// SetDeadline limits Accept, also one that waits. The error is always nil.
func (l *Listener) SetDeadline(t time.Time) error {
	l.dead.set(t)
	return nil
}

func (l *Listener) error(op string, err error) error {
	if _, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: "vsock", Addr: l.Addr(), Err: err}
}
