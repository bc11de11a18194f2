package vhostuser

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	maxReplies = 128             // resets for packets without a connection, waiting for room
	rxBudget   = 128             // packets sent in a round
	txBudget   = 32              // packets taken in a round
	workRounds = 2               // before others may have the lock
	closeWait  = 8 * time.Second // for the guest's answer to a full shutdown, as Linux has it
	firstPort  = 1 << 30         // of the ports that Dial and Listen pick
)

// The ends of everything that a device has.
var (
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("vsock device closed")
	// ErrGone: QEMU closed its end, or ended.
	ErrGone = errors.New("QEMU is gone")
	// ErrRestarted: the guest's driver started anew and knows no connection
	// from before.
	ErrRestarted = errors.New("guest driver restarted")
	// ErrBroken: the guest's rings are corrupt. The device waits for the
	// driver to start anew.
	ErrBroken = errors.New("guest broke the vsock device")
)

// key names a connection: the CIDs are always the same.
type key struct{ guest, host uint32 }

// mux has all connections of a device and moves their packets over the rings.
type mux struct {
	cid      uint64
	limit    int    // connections
	bufAlloc uint32 // receive buffer of each
	// offer accepts a connection that no listener wants, or refuses it. It is
	// called with mu held.
	offer func(*Conn) bool
	logf  func(string, ...any)

	mu        sync.Mutex
	rx, tx    *queue // nil while stopped
	conns     map[key]*Conn
	live      int                // connections that the guest or our users still hold
	closing   map[*Conn]struct{} // those that wait for the guest's answer to their end
	expiry    *time.Timer        // looks for answers that do not come; nil while none is due
	listeners map[uint32]*Listener
	ready     fifo     // connections that have something to send
	replies   []header // resets for packets without a connection
	lastPort  uint32
	closed    error    // why nothing works any more
	halted    bool     // broken, until the driver starts anew
	again     bool     // a goroutine is on its way to go on with the work
	later     []func() // what can wait until the guest was told
	chain     chain    // scratch
	stats     Stats
	onBroken  func() // tells QEMU, with mu held
}

// Stats counts what a device did since it was made.
type Stats struct {
	Connections int    // at the moment
	Opened      uint64 // connections, in both directions
	Refused     uint64 // connections the guest asked for and did not get
	BytesIn     uint64 // from the guest
	BytesOut    uint64 // to the guest
	Dropped     uint64 // packets of the guest that were not packets
}

// fifo is a queue of connections; each is in it once.
type fifo struct{ head, tail *Conn }

func (f *fifo) push(c *Conn) {
	if c.queued {
		return
	}
	c.queued, c.next = true, nil
	if f.tail == nil {
		f.head = c
	} else {
		f.tail.next = c
	}
	f.tail = c
}

func (f *fifo) pop() *Conn {
	c := f.head
	if f.head = c.next; f.head == nil {
		f.tail = nil
	}
	c.queued, c.next = false, nil
	return c
}

// schedule queues c if it has something to send, and forgets it if it is over.
func (m *mux) schedule(c *Conn) {
	if c.s.wants(len(c.out)) {
		m.ready.push(c)
	} else if c.s.state == stateDone {
		m.forget(c)
	}
}

// forget removes a connection that the guest knows nothing of any more.
func (m *mux) forget(c *Conn) {
	if m.conns[c.key] == c {
		delete(m.conns, c.key)
	}
	delete(m.closing, c)
	if c.closed && !c.released {
		c.released = true
		m.live--
	}
}

// kick moves packets, and leaves the rest to another goroutine if there is
// much. The caller holds mu.
func (m *mux) kick() {
	if m.work() && !m.again {
		m.again = true
		go m.finish()
	}
}

// finish moves packets until there are none to move.
func (m *mux) finish() {
	for more := true; more; {
		m.mu.Lock()
		if more = m.work(); !more {
			m.again = false
		}
		m.mu.Unlock()
	}
}

// work moves packets both ways, a bounded number, and tells whether there is
// more. The caller holds mu.
func (m *mux) work() (more bool) {
	m.guard(func() error {
		var err error
		more, err = m.rounds()
		return err
	})
	for _, f := range m.later {
		f()
	}
	clear(m.later)
	m.later = m.later[:0]
	return more && !m.halted
}

// drain takes what a guest left in its rings when it was stopped or died: as
// much as a ring can hold, and no more. The caller holds mu.
func (m *mux) drain() {
	for range maxQueueSize/txBudget + 1 {
		if !m.work() {
			return
		}
	}
}

// guard does what touches the guest's memory. The memory is a file of QEMU's.
// Should it shrink, an access faults; that is the end of the rings, as other
// errors are, not of the process. The caller holds mu.
func (m *mux) guard(do func() error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			fault, ok := r.(interface{ Addr() uintptr })
			if !ok {
				panic(r)
			}
			m.broken(fmt.Errorf("%w: fault at %#x", errRing, fault.Addr()))
		}
	}()
	if err := do(); err != nil {
		m.broken(err)
	}
}

// rounds moves packets both ways, a bounded number, and tells whether there is
// more.
func (m *mux) rounds() (more bool, err error) {
	for range workRounds {
		taken, err := m.receive()
		if err != nil {
			return false, err
		}
		blocked := len(m.replies) >= maxReplies
		sent, err := m.send()
		if err != nil {
			return false, err
		}
		if more = taken || sent || blocked && len(m.replies) < maxReplies; !more {
			return false, nil
		}
	}
	return more, nil
}

// receive takes packets from the guest and tells whether there may be more
// that it could take now.
func (m *mux) receive() (more bool, err error) {
	q := m.tx
	if q == nil {
		return false, nil
	}
	q.disarm()
	defer q.signal()
	for range txBudget {
		// A guest that sends what needs an answer must take the answers.
		if len(m.replies) >= maxReplies {
			return false, nil
		}
		ok, err := q.next(&m.chain)
		if err != nil {
			return false, err
		}
		if !ok {
			if q.arm() {
				return false, nil
			}
			q.disarm()
			continue
		}
		m.packet(&m.chain)
		q.done(&m.chain, 0)
	}
	return true, nil
}

// packet takes one packet from the guest.
func (m *mux) packet(c *chain) {
	var b [headerBytes]byte
	n, payload := take(b[:], c.out)
	if n < headerBytes {
		m.stats.Dropped++
		return
	}
	h := parsePacket(&b)
	if h.srcCID != m.cid {
		m.stats.Dropped++
		return
	}
	if h.dstCID != hostCID || h.typ != typeStream {
		m.refuse(&h)
		return
	}
	conn := m.conns[key{h.srcPort, h.dstPort}]
	switch {
	case conn == nil && h.op == opRequest:
		m.request(&h)
	case conn == nil:
		m.refuse(&h)
	case uint64(h.length) > c.outBytes-headerBytes:
		conn.apply(conn.s.violation("packet longer than its buffer", &h))
	default:
		ev := conn.s.receive(&h)
		if ev&eventData != 0 && !conn.deliver(payload, int(h.length)) {
			ev &^= eventData
		}
		conn.apply(ev)
	}
}

// refuse answers a packet with a reset, unless it is one.
func (m *mux) refuse(h *header) {
	if h.op == opReset {
		return
	}
	if h.op == opRequest {
		m.stats.Refused++
	}
	m.replies = append(m.replies, header{
		srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort,
		typ: h.typ, op: opReset,
	})
}

// awaitEnd bounds the wait for the guest's answer, if c waits for one. The caller
// holds mu. One timer serves all: see client.
func (m *mux) awaitEnd(c *Conn) {
	if _, waits := m.closing[c]; waits || c.s.state != stateClosing {
		return
	}
	if m.closing == nil {
		m.closing = make(map[*Conn]struct{})
	}
	m.closing[c], c.closedAt = struct{}{}, time.Now()
	if m.expiry == nil {
		m.expiry = time.AfterFunc(closeWait, func() { m.expire(closeWait) })
	}
}

// expire ends the connections whose end the guest has not confirmed in time, and
// looks again when the next one may be due.
func (m *mux) expire(wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expiry = nil
	next := wait
	for c := range m.closing {
		if left := wait - time.Since(c.closedAt); left > 0 {
			next = min(next, left)
			continue
		}
		delete(m.closing, c)
		if c.s.state == stateClosing {
			c.apply(c.s.fail(nil))
		}
	}
	if len(m.closing) > 0 {
		m.expiry = time.AfterFunc(next, func() { m.expire(wait) })
	}
	m.kick()
}

// request opens a connection that the guest asks for.
func (m *mux) request(h *header) {
	if m.live >= m.limit || h.length != 0 {
		m.refuse(h)
		return
	}
	c := m.newConn(key{h.srcPort, h.dstPort}, stateOffered)
	c.s.peerAlloc, c.s.peerFwd = h.bufAlloc, h.fwdCnt
	var taken bool
	if l := m.listeners[h.dstPort]; l != nil {
		if taken = l.offer(c); taken {
			m.accept(c)
		}
	} else {
		taken = m.offer != nil && m.offer(c)
	}
	if !taken {
		c.closed = true
		c.s.end(nil)
		m.forget(c)
		m.refuse(h)
	}
}

// accept answers a request of the guest.
func (m *mux) accept(c *Conn) {
	m.stats.Opened++
	c.s.accept()
	m.schedule(c)
}

// newConn adds a connection.
func (m *mux) newConn(k key, s state) *Conn {
	c := &Conn{
		m: m, key: k, s: stream{state: s, bufAlloc: m.bufAlloc},
		readWake:  make(chan struct{}, 1),
		writeWake: make(chan struct{}, 1),
	}
	m.conns[k] = c
	m.live++
	return c
}

// send gives packets to the guest, one connection after the other, and tells
// whether there is more that it could send now.
func (m *mux) send() (more bool, err error) {
	q := m.rx
	if q == nil {
		return false, nil
	}
	q.disarm()
	for range rxBudget {
		if len(m.replies) == 0 && !m.pruneReady() {
			return false, nil
		}
		ok, err := q.next(&m.chain)
		if err != nil {
			return false, err
		}
		if !ok {
			if q.arm() {
				return false, nil
			}
			q.disarm()
			continue
		}
		q.done(&m.chain, m.fillPacket(&m.chain))
		q.signal() // now, so that the guest works while we do
	}
	return true, nil
}

// pruneReady drops connections from the front that have nothing to send any
// more, and tells whether one is left that has.
func (m *mux) pruneReady() bool {
	for m.ready.head != nil {
		if c := m.ready.head; c.s.wants(len(c.out)) {
			return true
		}
		m.schedule(m.ready.pop())
	}
	return false
}

// fillPacket puts the next packet into the guest's buffers and returns its
// length; 0 if they have no room for one.
func (m *mux) fillPacket(chain *chain) uint32 {
	if chain.inBytes < headerBytes {
		return 0
	}
	var b [headerBytes]byte
	if len(m.replies) > 0 {
		m.replies[0].put(&b)
		if m.replies = m.replies[1:]; len(m.replies) == 0 {
			m.replies = nil
		}
		spread(chain.in, b[:])
		return headerBytes
	}
	c := m.ready.pop()
	h, n, ok := c.s.next(len(c.out), int(min(chain.inBytes, 1<<30))-headerBytes)
	if ok {
		h.srcCID, h.dstCID, h.srcPort, h.dstPort = hostCID, m.cid, c.key.host, c.key.guest
		h.put(&b)
		spread(spread(chain.in, b[:]), c.out[:n])
		if c.out = c.out[n:]; n > 0 && len(c.out) == 0 {
			wake(c.writeWake)
		}
		m.stats.BytesOut += uint64(n)
	}
	m.schedule(c)
	if !ok {
		return 0
	}
	return headerBytes + uint32(n)
}

// attach gives the mux a ring to work on, or nil to stop.
func (m *mux) attach(index uint32, q *queue) {
	switch index {
	case rxQueue:
		m.rx = q
	case txQueue:
		m.tx = q
	}
}

// broken stops the rings and ends all connections.
func (m *mux) broken(err error) {
	m.logf("vsock device: %v", err)
	m.rx, m.tx, m.halted = nil, nil, true
	m.endAll(fmt.Errorf("%w: %w", ErrBroken, err), false)
	if m.onBroken != nil {
		m.onBroken()
	}
}

// endAll ends the connections, without a word to the guest; but for those that
// it has not heard of, if keepNew.
func (m *mux) endAll(err error, keepNew bool) {
	m.replies = nil
	for _, c := range m.conns {
		if keepNew && c.s.state == stateAsking && c.s.due&dueRequest != 0 {
			continue
		}
		if c.s.state == stateClosing || c.s.state == stateDone {
			err := c.s.err
			c.apply(c.s.end(err))
			continue
		}
		c.apply(c.s.end(err))
	}
}

// shut ends everything for good.
func (m *mux) shut(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed != nil {
		return
	}
	m.closed = err
	m.rx, m.tx = nil, nil
	if m.expiry != nil {
		m.expiry.Stop()
	}
	m.endAll(err, false)
	for _, l := range m.listeners {
		l.end(err)
	}
}

// freePort picks a port of the host for which used is false.
func (m *mux) freePort(used func(port uint32) bool) uint32 {
	for {
		if m.lastPort++; m.lastPort < firstPort || m.lastPort == ^uint32(0) {
			m.lastPort = firstPort
		}
		if !used(m.lastPort) {
			return m.lastPort
		}
	}
}
