package vhostuser

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guest is an honest driver with sockets on top.
type guest struct {
	*frontEnd
	opts driverOptions
	rx   *ring

	mu        sync.Mutex
	cond      sync.Cond
	tx        *ring
	txFree    []uint16
	conns     map[key]*guestConn
	listeners map[uint32]chan *guestConn
	down      bool
	mute      bool // guarded by mu: chains are added and nobody is told
	late      bool // guarded by mu: somebody waited too long
	running   sync.WaitGroup
}

// newGuest returns a device and a guest whose driver is up.
func newGuest(t testing.TB, o Options, opts driverOptions) (*Device, *guest) {
	t.Helper()
	d, f := newDevice(t, o)
	g := &guest{frontEnd: f, opts: opts}
	g.cond.L = &g.mu
	f.handshake()
	g.boot()
	// Programs in the guest wait on a condition, which knows no deadline.
	late := time.AfterFunc(guestPatience, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.late, g.down = true, true
		for _, c := range g.conns {
			c.dead = true
		}
		g.cond.Broadcast()
	})
	t.Cleanup(func() {
		late.Stop()
		g.halt()
		if g.late {
			t.Errorf("the guest still waits after %v", guestPatience)
		}
	})
	return d, g
}

// guestPatience is how long programs in the guest wait for the device.
const guestPatience = time.Minute

// boot starts the driver, with empty rings.
func (g *guest) boot() {
	g.t.Helper()
	g.rx, g.tx = g.ring(rxQueue, g.opts.features), g.ring(txQueue, g.opts.features)
	g.conns, g.listeners = map[key]*guestConn{}, map[uint32]chan *guestConn{}
	g.txFree, g.down = nil, false
	for i := range testRing / 2 {
		g.txFree = append(g.txFree, uint16(2*i))
	}
	if !g.opts.noRX {
		for i := range testRing / 2 {
			g.postRX(uint16(2 * i))
		}
	}
	g.start(g.opts.features, [2]uint16{})
	g.running.Go(g.receive)
	g.running.Go(g.reclaim)
}

// halt stops the driver's goroutines.
func (g *guest) halt() {
	g.mu.Lock()
	g.down = true
	for _, c := range g.conns {
		c.dead = true
	}
	g.cond.Broadcast()
	g.mu.Unlock()
	for _, c := range g.call {
		_ = c.SetReadDeadline(time.Now())
	}
	g.running.Wait()
	for _, c := range g.call {
		_ = c.SetReadDeadline(time.Time{})
	}
}

func (g *guest) postRX(head uint16) {
	at := uint64(testGuest + rxAt + int(head)*rxBuffer)
	if g.opts.twoDescs {
		g.rx.setDesc(int(head), at, headerBytes, descWrite|descNext, head+1)
		g.rx.setDesc(int(head)+1, at+headerBytes, rxBuffer, descWrite, 0)
	} else {
		g.rx.setDesc(int(head), at, rxBuffer, descWrite, 0)
	}
	g.rx.add(head)
}

// receive hands packets to connections until the driver stops.
func (g *guest) receive() {
	for {
		head, n, ok := g.rx.pop()
		if !ok {
			g.rx.notify()
			if g.rx.wait() != nil {
				return
			}
			continue
		}
		b := bytes.Clone(g.mem[rxAt+int(head)*rxBuffer:][:n])
		g.postRX(head)
		if n == 0 && g.opts.noRX { // a test's own buffer, too small
			continue
		}
		if len(b) < headerBytes {
			g.t.Errorf("packet of %d bytes", n)
			continue
		}
		h := parsePacket((*[headerBytes]byte)(b))
		if h.srcCID != hostCID || h.dstCID != 3 || h.typ != typeStream || int(h.length) != n-headerBytes {
			g.t.Errorf("packet %+v of %d bytes", h, n)
		}
		g.packet(h, b[headerBytes:])
	}
}

// reclaim takes back buffers that the device has read.
func (g *guest) reclaim() {
	for {
		g.mu.Lock()
		for {
			head, _, ok := g.tx.pop()
			if !ok {
				break
			}
			g.txFree = append(g.txFree, head)
		}
		g.cond.Broadcast()
		g.mu.Unlock()
		if g.tx.wait() != nil {
			return
		}
	}
}

// transmit sends a packet. The caller holds mu.
func (g *guest) transmit(h header, p []byte) {
	for len(g.txFree) == 0 && !g.down {
		g.cond.Wait()
	}
	if g.down {
		return
	}
	head := g.txFree[0]
	g.txFree = g.txFree[1:]
	at := txAt + int(head/2)*txBuffer
	h.length = uint32(len(p))
	h.put((*[headerBytes]byte)(g.mem[at:]))
	copy(g.mem[at+headerBytes:], p)
	addr := uint64(testGuest + at)
	table, flags := g.mem[g.tx.at+int(head)*descBytes:], uint16(descNext)
	next := head + 1
	if g.opts.features&featIndirect != 0 {
		in := indirectAt + int(head)*descBytes
		g.tx.setDesc(int(head), uint64(testGuest+in), 2*descBytes, descIndirect, 0)
		table, next = g.mem[in:], 1
	}
	putDesc(table, addr, headerBytes, flags, next)
	putDesc(table[descBytes:], addr+headerBytes, uint32(len(p)), 0, 0)
	g.tx.add(head)
	if !g.mute {
		g.tx.notify()
	}
}

// guestConn is a program's socket in the guest.
type guestConn struct {
	g       *guest
	key     key
	s       stream // the same rules from the other side
	in      bytes.Buffer
	dead    bool
	connect bool
}

const guestAlloc = 256 << 10

func (g *guest) newConn(k key) *guestConn {
	c := &guestConn{g: g, key: k, s: stream{bufAlloc: guestAlloc}}
	g.conns[k] = c
	return c
}

// packet takes a packet from the host.
func (g *guest) packet(h header, p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.cond.Broadcast()
	c := g.conns[key{h.dstPort, h.srcPort}]
	if c == nil {
		l := g.listeners[h.dstPort]
		if h.op == opRequest && l != nil {
			c = g.newConn(key{h.dstPort, h.srcPort})
			c.s.state = stateOffered
			c.s.peerAlloc, c.s.peerFwd = h.bufAlloc, h.fwdCnt
			c.s.accept()
			c.flush()
			l <- c
		} else if h.op != opReset {
			g.transmit(header{srcCID: 3, dstCID: hostCID, srcPort: h.dstPort, dstPort: h.srcPort, typ: typeStream, op: opReset}, nil)
		}
		return
	}
	if ev := c.s.receive(&h); ev&eventData != 0 {
		c.in.Write(p)
	}
	if errors.Is(c.s.err, errViolation) {
		g.t.Errorf("host: %v", c.s.err)
	}
	c.flush()
}

// flush sends what is due. The caller holds mu.
func (c *guestConn) flush() {
	for {
		h, _, ok := c.s.next(0, 0)
		if !ok {
			break
		}
		c.put(h, nil)
	}
	if c.s.state == stateDone && c.g.conns[c.key] == c {
		delete(c.g.conns, c.key)
	}
}

func (c *guestConn) put(h header, p []byte) {
	h.srcCID, h.dstCID, h.srcPort, h.dstPort = 3, hostCID, c.key.guest, c.key.host
	c.g.transmit(h, p)
}

// dial connects to a port of the host.
func (g *guest) dial(from, to uint32) (*guestConn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.newConn(key{from, to})
	c.s.due = dueRequest
	c.flush()
	for c.s.state == stateAsking && !c.dead {
		g.cond.Wait()
	}
	if c.s.state == stateDone && c.s.err != nil {
		return nil, c.s.err
	}
	return c, nil
}

// listen takes connections of the host.
func (g *guest) listen(port uint32) chan *guestConn {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listeners[port] = make(chan *guestConn, 1024)
	return g.listeners[port]
}

func (c *guestConn) Read(p []byte) (int, error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	for c.in.Len() == 0 {
		switch {
		case c.s.peerShut&shutSend != 0:
			return 0, io.EOF
		case c.s.state == stateDone || c.dead:
			return 0, errors.Join(io.ErrUnexpectedEOF, c.s.err)
		}
		c.g.cond.Wait()
	}
	n, _ := c.in.Read(p)
	c.s.take(uint32(n))
	c.flush()
	return n, nil
}

func (c *guestConn) Write(p []byte) (n int, err error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	for n < len(p) {
		// Kernels of 2026 are no further ahead than their own buffer is large.
		ahead := c.s.sent - c.s.peerFwd
		switch {
		case !c.s.writable() || c.dead:
			return n, errors.Join(unix.EPIPE, c.s.err)
		case c.s.credit() == 0 || ahead >= c.s.bufAlloc:
			c.g.cond.Wait()
			continue
		}
		h, k, _ := c.s.next(len(p)-n, min(64<<10, int(c.s.bufAlloc-ahead)))
		if h.op == opData {
			c.put(h, p[n:][:k])
			n += k
		} else {
			c.put(h, nil)
		}
	}
	return n, nil
}

func (c *guestConn) end(directions uint32) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.s.close(directions)
	c.flush()
}

func (c *guestConn) CloseWrite() error { c.end(shutSend); return nil }
func (c *guestConn) Close() error      { c.end(shutBoth); return nil }

// reset ends the connection as a guest does that knows nothing of it.
func (c *guestConn) reset() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.s.fail(nil)
	c.flush()
}
