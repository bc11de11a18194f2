package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
)

// The rings of the device. QEMU keeps the third to itself.
const (
	rxQueue    = 0 // to the guest
	txQueue    = 1 // from the guest
	eventQueue = 2
	numQueues  = 3
)

// vring is what QEMU said about a ring.
type vring struct {
	size     uint32
	base     uint16 // where to start
	left     uint16 // where the last stop was
	addr     vringAddr
	haveAddr bool
	enabled  bool
	kick     *os.File // eventfd of the guest's notifications
	call     *bell    // the guest's interrupts
	err      *bell    // tells QEMU that the ring is broken
	queue    *queue   // nil while stopped
}

// session is the conversation with QEMU: it sets up memory and rings and gives
// them to the mux. Only its own goroutine uses it, but for what m.mu guards:
// the queues and their files.
type session struct {
	conn      *net.UnixConn
	m         *mux
	mem       *memory
	features  uint64
	protocols uint64
	status    uint64
	rings     [numQueues]vring
}

// run serves QEMU until it closes the connection or breaks the protocol.
func (s *session) run() error {
	defer s.free()
	s.m.mu.Lock()
	s.m.onBroken = s.tellBroken
	s.m.mu.Unlock()
	for {
		msg, err := readMessage(s.conn)
		if err != nil {
			s.m.mu.Lock()
			s.m.drain()
			s.m.mu.Unlock()
			return err
		}
		err = s.answer(&msg)
		msg.closeFDs()
		if err != nil {
			return err
		}
	}
}

// answer handles one request and replies if a reply is due.
func (s *session) answer(msg *message) error {
	out, err := s.handle(msg)
	if err != nil {
		s.m.logf("vsock device: request %d of QEMU: %v", msg.req, err)
	}
	switch {
	case out != nil && err == nil:
	case msg.flags&flagNeedAck != 0 && s.protocols&protoReplyAck != 0:
		out = binary.LittleEndian.AppendUint64(nil, 0)
		if err != nil {
			out[0] = 1
		}
	case err != nil:
		return fmt.Errorf("request %d of QEMU: %w", msg.req, err)
	default:
		return nil
	}
	if _, err := s.conn.Write(reply(msg.req, out)); err != nil {
		return fmt.Errorf("reply to QEMU: %w", err)
	}
	return nil
}

// handle does what a request asks for, and returns the reply of those that have
// one.
func (s *session) handle(msg *message) (out []byte, err error) {
	word := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	switch msg.req {
	case reqGetFeatures:
		return word(offeredFeatures), nil
	case reqGetProtocolFeatures:
		return word(offeredProtocols), nil
	case reqGetQueueNum:
		return word(numQueues), nil
	case reqGetMaxMemSlots:
		return word(maxMemSlots), nil
	case reqGetStatus:
		return word(s.status), nil
	case reqGetConfig:
		return s.getConfig(msg)
	case reqGetVringBase:
		return s.getVringBase(msg)
	case reqSetOwner:
		return nil, nil
	case reqResetOwner, reqResetDevice:
		s.reset()
		return nil, nil
	case reqSetFeatures:
		return nil, s.setFeatures(msg)
	case reqSetProtocolFeatures:
		return nil, s.setWord(msg, offeredProtocols, &s.protocols)
	case reqSetStatus:
		return nil, s.setWord(msg, 0xff, &s.status)
	case reqSetMemTable:
		return nil, s.setMemTable(msg)
	case reqAddMemReg:
		return nil, s.addRegion(msg)
	case reqRemMemReg:
		return nil, s.removeRegion(msg)
	}
	return nil, s.handleVring(msg)
}

// handleVring does what a request about one ring asks for.
func (s *session) handleVring(msg *message) error {
	switch msg.req {
	case reqSetVringNum:
		i, n, err := msg.vringState()
		if err == nil {
			s.rings[i].size = n
		}
		return err
	case reqSetVringBase:
		i, n, err := msg.vringState()
		if err == nil {
			s.rings[i].base = uint16(n)
		}
		return err
	case reqSetVringAddr:
		a, err := msg.vringAddr()
		if err == nil {
			s.rings[a.index].addr, s.rings[a.index].haveAddr = a, true
		}
		return err
	case reqSetVringEnable:
		i, n, err := msg.vringState()
		if err == nil {
			s.rings[i].enabled = n != 0
			s.update()
		}
		return err
	case reqSetVringKick, reqSetVringCall, reqSetVringErr:
		return s.setVringFile(msg)
	}
	return fmt.Errorf("%w: unknown request", errWire)
}

func (s *session) setWord(msg *message, allowed uint64, to *uint64) error {
	v, err := msg.u64()
	if err != nil {
		return err
	}
	if v&^allowed != 0 {
		return fmt.Errorf("%w: %#x is not among %#x", errWire, v, allowed)
	}
	*to = v
	return nil
}

// setFeatures takes what the driver acknowledged. Without protocol features
// there is no message that enables a ring.
func (s *session) setFeatures(msg *message) error {
	if err := s.setWord(msg, offeredFeatures, &s.features); err != nil {
		return err
	}
	if s.features&featProtocol == 0 {
		for i := range s.rings {
			s.rings[i].enabled = true
		}
	}
	return nil
}

// getConfig returns a part of the configuration space: the guest's CID. What
// lies behind it reads as zero. A reply without payload is a refusal.
func (s *session) getConfig(msg *message) ([]byte, error) {
	le := binary.LittleEndian
	if len(msg.payload) < configHeader {
		return []byte{}, nil
	}
	offset, size := le.Uint32(msg.payload), le.Uint32(msg.payload[4:])
	if int64(size) > int64(len(msg.payload)-configHeader) || offset > maxPayload {
		return []byte{}, nil
	}
	space := make([]byte, max(8, int(offset+size)))
	le.PutUint64(space, s.m.cid)
	return append(slices.Clone(msg.payload[:configHeader]), space[offset:offset+size]...), nil
}

// getVringBase stops a ring and says where it stood.
func (s *session) getVringBase(msg *message) ([]byte, error) {
	i, _, err := msg.vringState()
	if err != nil {
		return nil, err
	}
	v := &s.rings[i]
	s.stop(i)
	if v.kick != nil {
		v.kick.Close()
		v.kick = nil
	}
	out := binary.LittleEndian.AppendUint32(nil, i)
	return binary.LittleEndian.AppendUint32(out, uint32(v.base)), nil
}

// setVringFile takes an eventfd of a ring.
func (s *session) setVringFile(msg *message) error {
	v, err := msg.u64()
	if err != nil {
		return err
	}
	i := uint32(v & vringIndex)
	if i >= numQueues || v&^(vringIndex|vringNoFD) != 0 {
		return fmt.Errorf("%w: descriptor for ring %#x of %d", errWire, v, numQueues)
	}
	r := &s.rings[i]
	if msg.req == reqSetVringKick {
		if v&vringNoFD != 0 {
			return fmt.Errorf("%w: ring %d without notifications", errWire, i)
		}
		f, err := msg.takeFile("kick")
		if err != nil {
			return err
		}
		swap(&r.kick, f)
		go s.m.serve(f)
		s.update()
		return nil
	}
	var b *bell
	if v&vringNoFD == 0 {
		if b, err = msg.takeBell(); err != nil {
			return err
		}
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if msg.req == reqSetVringErr {
		swapBell(&r.err, b)
		return nil
	}
	swapBell(&r.call, b)
	if r.queue != nil {
		r.queue.call = b
		r.queue.signalledValid = false // the new one knows nothing
	}
	return nil
}

// swap replaces a file and closes the one before.
func swap(old **os.File, f *os.File) {
	if *old != nil {
		(*old).Close()
	}
	*old = f
}

// update starts and stops rings as QEMU's last word asks for.
func (s *session) update() {
	for i := range uint32(eventQueue) {
		v := &s.rings[i]
		run := v.kick != nil && v.enabled && v.haveAddr && s.mem != nil
		switch {
		case run && v.queue == nil:
			s.start(i)
		case !run && v.queue != nil:
			s.stop(i)
		}
	}
}

// start gives a ring to the mux. A ring that does not go on where it stopped
// belongs to a driver that knows no connection from before.
func (s *session) start(i uint32) {
	v := &s.rings[i]
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.rings[rxQueue].queue == nil && s.rings[txQueue].queue == nil {
		s.m.halted = false
	}
	if v.base != v.left {
		s.m.endAll(ErrRestarted, true)
	}
	s.build(i)
	s.m.kick()
}

// build makes the queue of a ring and hands it over. The caller holds m.mu. The
// guest chose the addresses: bad ones break its device, not the session.
func (s *session) build(i uint32) {
	s.m.guard(func() error {
		v := &s.rings[i]
		q, err := newQueue(s.mem, v.size, v.addr, v.base, s.features)
		if err != nil {
			return err
		}
		q.call = v.call
		v.queue = q
		if !s.m.halted {
			s.m.attach(i, q)
		}
		return nil
	})
}

// stop takes a ring from the mux.
func (s *session) stop(i uint32) {
	v := &s.rings[i]
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if v.queue != nil && i == txQueue {
		s.m.drain()
	}
	s.m.attach(i, nil)
	if v.queue != nil {
		v.base = v.queue.nextAvail
		v.left = v.base
		v.queue = nil
	}
}

// reset stops everything, as for a new driver.
func (s *session) reset() {
	for i := range uint32(numQueues) {
		s.stop(i)
		s.rings[i].enabled = false
	}
	s.features, s.status = 0, 0
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.endAll(ErrRestarted, true)
}

// tellBroken tells QEMU that the rings are of no use. m.mu is held.
func (s *session) tellBroken() {
	for i := range s.rings {
		s.rings[i].err.ring()
	}
}

// setMemTable takes new guest memory in place of the old.
func (s *session) setMemTable(msg *message) error {
	table, err := msg.memTable()
	if err != nil {
		return err
	}
	mem := &memory{}
	for i, at := range table {
		if mem, err = mem.mapped(at, msg.fds[i]); err != nil {
			return err
		}
	}
	s.setMemory(mem)
	return nil
}

// mapped returns a memory that has one region more; m is unmapped if that
// cannot be.
func (m *memory) mapped(at regionAt, fd int) (*memory, error) {
	r, err := mapRegion(at, fd)
	if err == nil {
		var more *memory
		if more, err = m.with(r); err == nil {
			return more, nil
		}
		r.unmap()
	}
	for _, r := range m.regions {
		r.unmap()
	}
	return nil, err
}

// addRegion adds a region of guest memory.
func (s *session) addRegion(msg *message) error {
	at, err := msg.oneRegion()
	if err != nil {
		return err
	}
	old := s.mem
	if old == nil {
		old = &memory{}
	}
	if len(msg.fds) != 1 || len(old.regions) >= maxMemSlots {
		return fmt.Errorf("%w: memory region with %d descriptors beside %d", errWire, len(msg.fds), len(old.regions))
	}
	r, err := mapRegion(at, msg.fds[0])
	if err != nil {
		return err
	}
	mem, err := old.with(r)
	if err != nil {
		r.unmap()
		return err
	}
	s.setMemory(mem)
	return nil
}

// removeRegion takes a region of guest memory away.
func (s *session) removeRegion(msg *message) error {
	at, err := msg.oneRegion()
	if err != nil {
		return err
	}
	mem := &memory{}
	if s.mem != nil {
		mem.regions = slices.DeleteFunc(slices.Clone(s.mem.regions), func(r *region) bool {
			return r.guest == at.guest && r.size == at.size && r.user == at.user
		})
	}
	if s.mem == nil || len(mem.regions) == len(s.mem.regions) {
		return fmt.Errorf("%w: no memory region %#x+%#x to remove", errWire, at.guest, at.size)
	}
	s.setMemory(mem)
	return nil
}

// setMemory puts the rings that run onto other memory, and unmaps what it does
// not have. Rings that wait for memory start.
func (s *session) setMemory(mem *memory) {
	s.m.mu.Lock()
	old := s.mem
	s.mem = mem
	for i := range uint32(eventQueue) {
		if v := &s.rings[i]; v.queue != nil {
			v.base = v.queue.nextAvail
			s.m.attach(i, nil)
			s.build(i)
		}
	}
	if old != nil {
		for _, r := range old.regions {
			if !slices.Contains(mem.regions, r) {
				r.unmap()
			}
		}
	}
	s.m.kick()
	s.m.mu.Unlock()
	s.update()
}

// free gives back everything that QEMU gave.
func (s *session) free() {
	s.conn.Close()
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.rx, s.m.tx, s.m.onBroken = nil, nil, nil
	for i := range s.rings {
		swap(&s.rings[i].kick, nil)
		swapBell(&s.rings[i].call, nil)
		swapBell(&s.rings[i].err, nil)
	}
	if s.mem != nil {
		for _, r := range s.mem.regions {
			r.unmap()
		}
		s.mem = nil
	}
}

// serve moves packets whenever the guest notifies, until the eventfd is closed.
func (m *mux) serve(kick *os.File) {
	var counter [8]byte
	for {
		if n, err := kick.Read(counter[:]); err != nil || n != len(counter) {
			if err != nil && !errors.Is(err, os.ErrClosed) {
				m.logf("vsock device: wait for the guest: %v", err)
			}
			return
		}
		for more := true; more; {
			m.mu.Lock()
			more = m.work()
			m.mu.Unlock()
		}
	}
}
