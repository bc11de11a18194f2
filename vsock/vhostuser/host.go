package vhostuser

import (
	"bytes"
	"context"
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
	copyBuffer  = 64 << 10
)

// host joins the guest with Unix sockets, by the protocol that Firecracker and
// vhost-device-vsock have.
type host struct {
	m        *mux
	path     string
	listener *net.UnixListener
	clients  chan struct{} // one place for each that was not connected yet
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	buffers  sync.Pool // of *[copyBuffer]byte: connections that come and go are no work for the collector

	mu    sync.Mutex
	socks map[*net.UnixConn]struct{} // guarded by mu: nil when closed
	news  map[*client]struct{}       // guarded by mu: those that were not connected yet
	watch *time.Timer                // guarded by mu: looks for clients that are late; nil while there are none
}

// client is a program that has not been connected yet. All share one timer: each
// that is set wakes a thread of the runtime, which a connect would have to wait
// for.
type client struct {
	u      *net.UnixConn
	line   []byte // of what it said
	c      *Conn  // nil until the guest is asked
	since  time.Time
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// errLate: a client was not connected in time.
var errLate = fmt.Errorf("no CONNECT line, or no answer of the guest, in %v", clientWait)

func newHost(m *mux, path string) (*host, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("vsock device: listen for the host's programs: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &host{
		m: m, path: path, listener: l, ctx: ctx, cancel: cancel,
		clients: make(chan struct{}, clientMax), socks: make(map[*net.UnixConn]struct{}),
		news: make(map[*client]struct{}),
	}, nil
}

// close ends the listener and every connection.
func (h *host) close() {
	if h == nil {
		return
	}
	h.cancel()
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
	cl.ctx, cl.cancel = context.WithCancelCause(h.ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.news[cl] = struct{}{}
	if h.watch == nil {
		h.watch = time.AfterFunc(clientWait, h.endLate)
	}
}

// met forgets a client that is connected, or will never be.
func (h *host) met(cl *client) {
	cl.cancel(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.news, cl)
}

// endLate ends the clients that are late, and looks again when the next one may
// be.
func (h *host) endLate() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = nil
	if h.socks == nil {
		return
	}
	next := clientWait
	for cl := range h.news {
		if left := clientWait - time.Since(cl.since); left > 0 {
			next = min(next, left)
			continue
		}
		cl.cancel(errLate)
		cl.u.Close()
		delete(h.news, cl)
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
			case <-h.ctx.Done():
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
		// A client's line is there already, most times: then the guest is asked before
		// another goroutine wakes a thread.
		cl := &client{u: u, line: make([]byte, 0, helloMax)}
		err = h.ask(cl, false)
		h.running.Go(func() {
			defer h.drop(u)
			c, err := h.connect(cl, err)
			<-h.clients
			if err != nil {
				h.m.logf("vsock device: client of %s: %v", h.path, err)
				return
			}
			c.setSink(newSink(u))
			h.join(c, u)
		})
	}
}

// connect does what a client's first line asks for. err is what came of it so far.
func (h *host) connect(cl *client, err error) (*Conn, error) {
	h.await(cl)
	defer h.met(cl)
	if err == nil && cl.c == nil {
		err = h.ask(cl, true)
	}
	if err != nil {
		if late := context.Cause(cl.ctx); late != nil {
			err = late // the end of the socket is only its echo
		}
		return nil, err
	}
	if err := h.m.awaitDial(cl.ctx, cl.c); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(cl.u, "OK %d\n", cl.c.key.host); err != nil {
		_ = cl.c.Reset()
		return nil, err
	}
	return cl.c, nil
}

// ask reads a client's line, and begins to connect it. Unless it is to wait, it
// leaves what has not come.
func (h *host) ask(cl *client, wait bool) error {
	whole, err := cl.readHello(wait)
	if err != nil || !whole {
		return err
	}
	port, err := parseHello(string(cl.line))
	if err == nil {
		cl.c, err = h.m.startDial(port)
	}
	return err
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
	h.m.later = append(h.m.later, func() {
		h.running.Go(func() {
			defer h.drop(u)
			h.join(c, u)
		})
	})
	return true
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
