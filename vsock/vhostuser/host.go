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
	helloWait   = 10 * time.Second // for a client's CONNECT line
	connectWait = 10 * time.Second // for the guest to answer
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
	socks map[*net.UnixConn]struct{} // nil when closed
}

func newHost(m *mux, path string) (*host, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("vsock device: listen for the host's programs: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &host{
		m: m, path: path, listener: l, ctx: ctx, cancel: cancel,
		clients: make(chan struct{}, clientMax), socks: make(map[*net.UnixConn]struct{}),
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
		h.running.Go(func() {
			defer h.drop(u)
			c, err := h.connect(u)
			<-h.clients
			if err != nil {
				h.m.logf("vsock device: client of %s: %v", h.path, err)
				return
			}
			h.join(c, u)
		})
	}
}

// connect does what a client's first line asks for.
func (h *host) connect(u *net.UnixConn) (*Conn, error) {
	port, err := readHello(u)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.ctx, connectWait)
	defer cancel()
	c, err := h.m.dial(ctx, port)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(u, "OK %d\n", c.key.host); err != nil {
		_ = c.Reset()
		return nil, err
	}
	return c, nil
}

// readHello reads "CONNECT <port>\n" and not a byte more.
func readHello(u *net.UnixConn) (port uint32, err error) {
	if err := u.SetReadDeadline(time.Now().Add(helloWait)); err != nil {
		return 0, err
	}
	line := make([]byte, 0, helloMax)
	for len(line) < helloMax {
		if line, err = readLine(u, line); err != nil {
			return 0, fmt.Errorf("read CONNECT line: %w", err)
		}
		if line[len(line)-1] == '\n' {
			if port, err = parseHello(string(line)); err != nil {
				return 0, err
			}
			return port, u.SetReadDeadline(time.Time{})
		}
	}
	return 0, fmt.Errorf("CONNECT line %q has no end; send CONNECT <port>", line)
}

// readLine appends to line what has come, up to the end of the line and the
// capacity. It waits for a byte.
func readLine(u *net.UnixConn, line []byte) ([]byte, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return line, err
	}
	room := line[len(line):cap(line)]
	var n int
	var peek error
	err = raw.Read(func(fd uintptr) bool {
		n, _, peek = unix.Recvfrom(int(fd), room, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return peek != unix.EAGAIN
	})
	switch {
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
// It is called with m.mu held.
func (h *host) offer(c *Conn) bool {
	h.running.Go(func() { h.forward(c) })
	return true
}

// forward connects to the Unix socket of the port, and answers the guest.
func (h *host) forward(c *Conn) {
	// Not net.Dial, which brings the resolver of names into /init. A Unix socket
	// answers at once, with EAGAIN where its backlog is full.
	path := h.path + "_" + strconv.FormatUint(uint64(c.key.host), 10)
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.m.logf("vsock device: guest connects to port %d: %v", c.key.host, err)
		h.m.refuseOffered(c)
		return
	}
	if !h.keep(u) {
		_ = c.Reset()
		return
	}
	defer h.drop(u)
	h.m.mu.Lock()
	h.m.accept(c)
	h.m.kick()
	h.m.mu.Unlock()
	h.join(c, u)
}

// refuseOffered tells the guest that its connection is refused.
func (m *mux) refuseOffered(c *Conn) {
	m.mu.Lock()
	m.stats.Refused++
	m.mu.Unlock()
	_ = c.Reset()
}

// join copies both ways until both ends have ended, and passes the ends on:
// a half-close as one, a close as one, anything else as a reset.
func (h *host) join(c *Conn, u *net.UnixConn) {
	broken := func() {
		_ = c.Reset()
		u.Close()
	}
	var both sync.WaitGroup
	both.Go(func() {
		b := h.buffer()
		defer h.buffers.Put(b)
		if _, err := io.CopyBuffer(onlyWriter{u}, c, b[:]); err != nil {
			broken()
			return
		}
		_ = u.CloseWrite()
	})
	both.Go(func() {
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
	})
	both.Wait()
	_ = c.Close()
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
