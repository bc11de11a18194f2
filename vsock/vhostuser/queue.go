package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	maxQueueSize = 1024 // entries of a ring; QEMU's device has 128
	maxChain     = 1024 // descriptors in a chain, indirect ones too
	descBytes    = 16

	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
	usedNoNotify     = 1
)

// errRing: the guest's ring is not one.
var errRing = errors.New("corrupt virtqueue")

// queue is a split virtqueue (virtio 1.2, section 2.7) in guest memory. Every
// number in it is read once and checked. It is not safe for concurrent use.
type queue struct {
	mem               *memory
	size              uint16
	desc, avail, used []byte
	availFlags        word
	availIdx          word
	usedEvent         word // the guest: interrupt me when used passes this
	usedFlags         word
	usedIdx           word
	availEvent        word // the device: notify me when available passes this

	eventIdx, indirect bool
	nextAvail          uint16 // the next entry to take
	nextUsed           uint16 // the next entry to give back
	signalled          uint16 // nextUsed at the last look at usedEvent
	signalledValid     bool
	call               *bell // interrupts the guest; nil for none
}

// chain is a chain of descriptors: what the guest wrote for the device, and
// room for what the device writes.
type chain struct {
	head     uint16
	out, in  [][]byte
	outBytes uint64
	inBytes  uint64
	descs    int
}

// newQueue checks where a ring lies and returns it. base is the first
// available entry that was not taken before.
func newQueue(mem *memory, size uint32, a vringAddr, base uint16, features uint64) (*queue, error) {
	if size == 0 || size > maxQueueSize || size&(size-1) != 0 {
		return nil, fmt.Errorf("%w: ring %d of %d entries; a power of two up to %d is possible", errRing, a.index, size, maxQueueSize)
	}
	n := uint64(size)
	q := &queue{
		mem: mem, size: uint16(size), nextAvail: base,
		desc:  mem.user(a.desc, n*descBytes),
		avail: mem.user(a.avail, 6+2*n),
		used:  mem.user(a.used, 6+8*n),

		eventIdx: features&featEventIdx != 0,
		indirect: features&featIndirect != 0,
	}
	if q.desc == nil || q.avail == nil || q.used == nil {
		return nil, fmt.Errorf("%w: ring %d is outside the guest's memory", errRing, a.index)
	}
	q.availFlags, q.availIdx = wordAt(q.avail, 0), wordAt(q.avail, 2)
	q.usedFlags, q.usedIdx = wordAt(q.used, 0), wordAt(q.used, 2)
	if q.availIdx == nil || q.usedIdx == nil {
		return nil, fmt.Errorf("%w: ring %d is not aligned", errRing, a.index)
	}
	q.usedEvent, q.availEvent = wordAt(q.avail, 4+2*int(size)), wordAt(q.used, 4+8*int(size))
	q.nextUsed = load(q.usedIdx)
	return q, nil
}

// next takes the next available chain, if there is one. c is overwritten and
// valid until the next call.
func (q *queue) next(c *chain) (bool, error) {
	pending := load(q.availIdx) - q.nextAvail
	switch {
	case pending == 0:
		return false, nil
	case pending > q.size:
		return false, fmt.Errorf("%w: %d entries available in a ring of %d", errRing, pending, q.size)
	}
	slot := int(q.nextAvail & (q.size - 1))
	head := load(wordAt(q.avail, 4+2*slot))
	if head >= q.size {
		return false, fmt.Errorf("%w: descriptor %d in a ring of %d", errRing, head, q.size)
	}
	*c = chain{head: head, out: c.out[:0], in: c.in[:0]}
	if err := q.walk(c, q.desc, head, q.indirect); err != nil {
		return false, err
	}
	q.nextAvail++
	return true, nil
}

// walk follows a chain through a table of descriptors.
func (q *queue) walk(c *chain, table []byte, i uint16, indirect bool) error {
	entries := len(table) / descBytes
	for steps := 1; ; steps++ {
		if int(i) >= entries || steps > entries {
			return fmt.Errorf("%w: a chain leaves its table of %d or goes in a circle", errRing, entries)
		}
		var d [descBytes]byte // a copy: the guest may change it meanwhile
		copy(d[:], table[int(i)*descBytes:])
		addr, length := binary.LittleEndian.Uint64(d[:]), binary.LittleEndian.Uint32(d[8:])
		flags := binary.LittleEndian.Uint16(d[12:])
		if flags&descIndirect != 0 {
			return q.walkIndirect(c, addr, length, flags, indirect)
		}
		if err := q.add(c, addr, uint64(length), flags); err != nil {
			return err
		}
		if flags&descNext == 0 {
			return nil
		}
		i = binary.LittleEndian.Uint16(d[14:])
	}
}

// walkIndirect follows a chain into the table that ends it.
func (q *queue) walkIndirect(c *chain, addr uint64, length uint32, flags uint16, allowed bool) error {
	switch {
	case !allowed:
		return fmt.Errorf("%w: an indirect table where none may be", errRing)
	case flags&descNext != 0:
		return fmt.Errorf("%w: a chain goes on behind its indirect table", errRing)
	case length == 0 || length%descBytes != 0 || length > maxChain*descBytes:
		return fmt.Errorf("%w: indirect table of %d bytes", errRing, length)
	}
	table := q.mem.at(addr, uint64(length))
	if len(table) != int(length) {
		return fmt.Errorf("%w: indirect table at %#x+%#x is outside the guest's memory", errRing, addr, length)
	}
	return q.walk(c, table, 0, false)
}

// add appends one descriptor's memory to a chain.
func (q *queue) add(c *chain, addr, length uint64, flags uint16) (err error) {
	if c.descs++; c.descs > maxChain {
		return fmt.Errorf("%w: a chain of more than %d descriptors", errRing, maxChain)
	}
	ok := true
	switch {
	case flags&descWrite != 0:
		c.in, ok = q.mem.gather(c.in, addr, length)
		c.inBytes += length
	case c.inBytes > 0:
		return fmt.Errorf("%w: a chain has readable memory behind writable", errRing)
	default:
		c.out, ok = q.mem.gather(c.out, addr, length)
		c.outBytes += length
	}
	if !ok {
		return fmt.Errorf("%w: descriptor %#x+%#x is outside the guest's memory", errRing, addr, length)
	}
	return nil
}

// done gives a chain back with written bytes in it.
func (q *queue) done(c *chain, written uint32) {
	entry := q.used[4+8*int(q.nextUsed&(q.size-1)):][:8]
	binary.LittleEndian.PutUint32(entry, uint32(c.head))
	binary.LittleEndian.PutUint32(entry[4:], written)
	q.nextUsed++
	store(q.usedIdx, q.nextUsed)
}

// signal interrupts the guest if it wants to hear of what was given back since
// the last signal.
func (q *queue) signal() {
	if q.signalledValid && q.signalled == q.nextUsed {
		return
	}
	fence() // the guest writes what it wants, then looks at used
	var wanted bool
	if q.eventIdx {
		event := load(q.usedEvent)
		wanted = !q.signalledValid || q.nextUsed-event-1 < q.nextUsed-q.signalled
	} else {
		wanted = load(q.availFlags)&availNoInterrupt == 0
	}
	q.signalled, q.signalledValid = q.nextUsed, true
	if wanted {
		q.call.ring()
	}
}

// arm asks the guest for a notification when it adds a chain, and tells whether
// there is none yet. If there is, no notification may come.
func (q *queue) arm() (empty bool) {
	if q.eventIdx {
		store(q.availEvent, q.nextAvail)
	} else {
		store(q.usedFlags, 0)
	}
	fence()
	return load(q.availIdx) == q.nextAvail
}

// disarm tells the guest that the device is looking anyway.
func (q *queue) disarm() {
	if !q.eventIdx {
		store(q.usedFlags, usedNoNotify)
	}
}
