package vhostuser

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	clientWait  = 20 * time.Second // for a client's CONNECT line and the guest's answer
	helloMax    = 32               // bytes of a CONNECT line
	clientMax   = 1024             // clients that were not connected yet
	acceptPause = 100 * time.Millisecond
	lateAgain   = time.Second // until clients that were given up are looked at again
	copyBuffer  = 64 << 10
)

// host joins the guest with Unix sockets, by the protocol that Firecracker and
// vhost-device-vsock have.
type host struct {
	m        *mux
	path     string
	listener *net.UnixListener
	clients  chan struct{} // one place for each that was not connected yet
	closing  chan struct{}
	running  sync.WaitGroup // clients and connections
	buffers  sync.Pool      // of *[copyBuffer]byte: connections that come and go are no work for the collector

	// Guarded by mu, which may be locked with m.mu held, not the other way round.
	mu    sync.Mutex
	socks map[*net.UnixConn]struct{} // nil when closed
	news  map[*client]struct{}       // those that were not connected yet
	watch *time.Timer                // looks for clients that are late; nil while there are none
}

// client is a program that has not been connected yet. All share one timer: each
// that is set wakes a thread of the runtime, which a connect would have to wait
// for.
type client struct {
	u     *net.UnixConn
	line  []byte // of what it said
	since time.Time
	c     *Conn // guarded by host.mu: nil until the guest is asked
	late  bool  // guarded by host.mu: it was given up
}

// errLate: a client was not connected in time.
var errLate = fmt.Errorf("no CONNECT line, or no answer of the guest, in %v", clientWait)

func newHost(m *mux, path string) (*host, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("vsock device: listen for the host's programs: %w", err)
	}
	return &host{
		m: m, path: path, listener: l, closing: make(chan struct{}),
		clients: make(chan struct{}, clientMax), socks: make(map[*net.UnixConn]struct{}),
		news: make(map[*client]struct{}),
	}, nil
}

// close ends the listener and every connection. It is called once, after m.shut.
func (h *host) close() {
	if h == nil {
		return
	}
	close(h.closing)
	h.listener.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for u := range h.socks {
		u.Close()
	}
	h.socks = nil
	if h.watch != nil {
		h.watch.Stop()
	}
}

// await notes a client that is to be connected soon.
func (h *host) await(cl *client) {
	cl.since = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.news[cl] = struct{}{}
	if h.watch == nil {
		h.watch = time.AfterFunc(clientWait, h.endLate)
	}
}

// met forgets a client that is connected, or will never be, and tells whether it
// was given up.
func (h *host) met(cl *client) (late bool) {
	<-h.clients
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.news, cl)
	return cl.late
}

// endLate gives up the clients that are late, and looks again when the next one
// may be.
func (h *host) endLate() {
	var asked []*Conn
	defer func() {
		for _, c := range asked {
			h.m.giveUp(c)
		}
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = nil
	if h.socks == nil {
		return
	}
	next := clientWait
	for cl := range h.news {
		left := clientWait - time.Since(cl.since)
		next = min(next, max(left, lateAgain))
		if left > 0 {
			continue
		}
		cl.late = true
		if cl.c == nil {
			cl.u.Close() // which is the end of its line
		} else {
			asked = append(asked, cl.c)
		}
	}
	if len(h.news) > 0 {
		h.watch = time.AfterFunc(next, h.endLate)
	}
}

// keep notes a socket to be closed with the device; it is false when that is
// now.
func (h *host) keep(u *net.UnixConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.socks == nil {
		u.Close()
		return false
	}
	h.socks[u] = struct{}{}
	return true
}

// drop closes a socket.
func (h *host) drop(u *net.UnixConn) {
	h.mu.Lock()
	delete(h.socks, u)
	h.mu.Unlock()
	u.Close()
}

// serve takes clients until the listener is closed, and returns when all are
// done with.
func (h *host) serve() {
	defer h.running.Wait()
	for {
		u, err := h.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, most likely
			h.m.logf("vsock device: accept on %s: %v", h.path, err)
			select {
			case <-time.After(acceptPause):
			case <-h.closing:
			}
			continue
		}
		select {
		case h.clients <- struct{}{}:
		default:
			u.Close()
			continue
		}
		if !h.keep(u) {
			return
		}
		h.running.Add(1)
		h.take(&client{u: u, line: make([]byte, 0, helloMax)})
	}
}

// take does what a client's first line asks for. It is there already, most times:
// then the guest is asked before a goroutine wakes a thread.
func (h *host) take(cl *client) {
	h.await(cl)
	whole, err := cl.readHello(false)
	if err == nil && !whole {
		go func() {
			_, err := cl.readHello(true)
			h.ask(cl, err)
		}()
		return
	}
	h.ask(cl, err)
}

// ask begins to connect a client that has said where to, unless err came of that.
func (h *host) ask(cl *client, err error) {
	var port uint32
	if err == nil {
		port, err = parseHello(string(cl.line))
	}
	var c *Conn
	if err == nil {
		c, err = h.m.startDial(port, func(c *Conn, err error) { h.answered(cl, c, err) })
	}
	if err != nil {
		h.refused(cl, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	cl.c = c
}

// answered tells a client the guest's answer, on the spot, and joins them. It is
// called with m.mu held.
func (h *host) answered(cl *client, c *Conn, err error) {
	if err == nil {
		if err = cl.greet(c); err == nil {
			c.sink = newSink(cl.u)
			h.met(cl)
			h.m.later = append(h.m.later, func() { go h.joined(c, cl.u) })
			return
		}
	}
	go func() {
		_ = c.Reset()
		h.refused(cl, err)
	}()
}

// refused ends a client that is not connected.
func (h *host) refused(cl *client, err error) {
	defer h.running.Done()
	if h.met(cl) {
		err = errLate // what came of it is only its echo
	}
	h.m.logf("vsock device: client of %s: %v", h.path, err)
	h.drop(cl.u)
}

// greet tells a client that it is connected. Nothing was sent to it before, so
// its socket has room.
func (cl *client) greet(c *Conn) error {
	raw, err := cl.u.SyscallConn()
	if err != nil {
		return err
	}
	line := fmt.Appendf(nil, "OK %d\n", c.key.host)
	var sent int
	var send error
	err = raw.Control(func(fd uintptr) {
		sent, send = unix.SendmsgN(int(fd), line, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if err == nil && send == nil && sent < len(line) {
		send = io.ErrShortWrite
	}
	return errors.Join(err, send)
}

// readHello reads "CONNECT <port>\n" and not a byte more, and tells whether it has
// all of it. Unless it is to wait, it takes what is there.
func (cl *client) readHello(wait bool) (whole bool, err error) {
	for len(cl.line) < helloMax {
		before := len(cl.line)
		if cl.line, err = readLine(cl.u, cl.line, wait); err != nil {
			return false, fmt.Errorf("read CONNECT line: %w", err)
		}
		if len(cl.line) == before {
			return false, nil
		}
		if cl.line[len(cl.line)-1] == '\n' {
			return true, nil
		}
	}
	return false, fmt.Errorf("CONNECT line %q has no end; send CONNECT <port>", cl.line)
}

// readLine appends to line what has come, up to the end of the line and the
// capacity. Where nothing has it may wait.
func readLine(u *net.UnixConn, line []byte, wait bool) ([]byte, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return line, err
	}
	room := line[len(line):cap(line)]
	var n int
	var peek error
	err = raw.Read(func(fd uintptr) bool {
		n, _, peek = unix.Recvfrom(int(fd), room, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !wait || peek != unix.EAGAIN
	})
	switch {
	case err == nil && peek == unix.EAGAIN:
		return line, nil
	case err != nil || peek != nil:
		return line, errors.Join(err, peek)
	case n == 0:
		return line, io.ErrUnexpectedEOF
	}
	if end := bytes.IndexByte(room[:n], '\n'); end >= 0 {
		n = end + 1
	}
	_, err = io.ReadFull(u, room[:n])
	return line[:len(line)+n], err
}

// parseHello returns the port that a client asks for.
func parseHello(line string) (uint32, error) {
	number, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "CONNECT ")
	port, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("client says %q; send CONNECT <port>", line)
	}
	return uint32(port), nil
}

// offer takes a connection of the guest to a Unix socket, if there may be one.
// It is called with m.mu held, which is no wait for others: a Unix socket answers
// at once, with EAGAIN where its backlog is full.
func (h *host) offer(c *Conn) bool {
	// Not net.Dial, which brings the resolver of names into /init.
	path := h.path + "_" + strconv.FormatUint(uint64(c.key.host), 10)
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.m.logf("vsock device: guest connects to port %d: %v", c.key.host, err)
		return false
	}
	if !h.keep(u) {
		return false
	}
	c.sink = newSink(u)
	h.m.accept(c)
	// A new goroutine wakes a thread: the guest need not wait for that.
	h.running.Add(1)
	h.m.later = append(h.m.later, func() { go h.joined(c, u) })
	return true
}

// joined is the life of a connection with a socket.
func (h *host) joined(c *Conn, u *net.UnixConn) {
	defer h.running.Done()
	defer h.drop(u)
	h.join(c, u)
}

// join copies both ways until both ends have ended, and passes the ends on:
// a half-close as one, a close as one, anything else as a reset.
func (h *host) join(c *Conn, u *net.UnixConn) {
	broken := func() {
		_ = c.Reset()
		u.Close()
	}
	var down sync.WaitGroup
	down.Go(func() {
		b := h.buffer()
		defer h.buffers.Put(b)
		if _, err := io.CopyBuffer(onlyWriter{u}, c, b[:]); err != nil {
			broken()
			return
		}
		_ = u.CloseWrite()
	})
	h.up(c, u, broken)
	down.Wait()
	_ = c.Close()
}

// up copies to the guest.
func (h *host) up(c *Conn, u *net.UnixConn, broken func()) {
	b := h.buffer()
	defer h.buffers.Put(b)
	_, err := io.CopyBuffer(onlyWriter{c}, u, b[:])
	switch {
	case err != nil:
		broken()
	case hungUp(u):
		_ = c.Close()
	default:
		_ = c.CloseWrite()
	}
}

// buffer returns a buffer, with whatever is in it.
func (h *host) buffer() *[copyBuffer]byte {
	if b, ok := h.buffers.Get().(*[copyBuffer]byte); ok {
		return b
	}
	return new([copyBuffer]byte)
}

// onlyWriter hides other methods, which would copy without our buffer.
type onlyWriter struct{ io.Writer }

// hungUp tells whether the peer of a Unix socket has closed it altogether.
func hungUp(u *net.UnixConn) (gone bool) {
	raw, err := u.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(set, 0)
		gone = err == nil && n > 0 && set[0].Revents&unix.POLLHUP != 0
	})
	return gone || err != nil
}
