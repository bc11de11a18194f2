package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Requests of the front end (docs/interop/vhost-user.rst).
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqResetOwner          = 4
	reqSetMemTable         = 5
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqSetVringErr         = 14
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqGetConfig           = 24
	reqSetConfig           = 25
	reqResetDevice         = 34
	reqGetMaxMemSlots      = 36
	reqAddMemReg           = 37
	reqRemMemReg           = 38
	reqSetStatus           = 39
	reqGetStatus           = 40
)

// Features of the device, acknowledged by the driver, and of the protocol.
const (
	featIndirect  = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	featEventIdx  = 1 << 29 // VIRTIO_F_EVENT_IDX
	featProtocol  = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	featVersion1  = 1 << 32 // VIRTIO_F_VERSION_1
	featNotifyEmp = 1 << 24 // VIRTIO_F_NOTIFY_ON_EMPTY, which QEMU may pass through from a legacy driver

	protoMQ       = 1 << 0
	protoReplyAck = 1 << 3
	protoConfig   = 1 << 9
	protoReset    = 1 << 13
	protoMemSlots = 1 << 15
	protoStatus   = 1 << 16

	offeredFeatures  = featIndirect | featEventIdx | featProtocol | featVersion1
	offeredProtocols = protoMQ | protoReplyAck | protoConfig | protoReset | protoMemSlots | protoStatus
)

const (
	wireHeader   = 12
	wireVersion  = 1
	flagVersion  = 3 // mask
	flagReply    = 1 << 2
	flagNeedAck  = 1 << 3
	maxPayload   = 1024 // the largest that QEMU sends is a memory table of 264 bytes
	maxTable     = 8    // regions in a memory table, and descriptors with a message
	maxMemSlots  = 64
	regionBytes  = 32
	vringIndex   = 0xff   // of the word that comes with a kick, call or err descriptor
	vringNoFD    = 1 << 8 // there is no descriptor
	configHeader = 12
)

// errWire: the front end broke the protocol.
var errWire = errors.New("vhost-user protocol violation")

// message is one request of the front end. The receiver owns the descriptors
// that it has not taken.
type message struct {
	req     uint32
	flags   uint32
	payload []byte
	fds     []int
}

// closeFDs closes what nobody took.
func (m *message) closeFDs() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
	m.fds = nil
}

// takeFD returns the only descriptor of the message. It does not block: a file
// that is closed while in use needs that, and so does a bell.
func (m *message) takeFD(name string) (int, error) {
	if len(m.fds) != 1 {
		return -1, fmt.Errorf("%w: %d descriptors with %s, want 1", errWire, len(m.fds), name)
	}
	fd := m.fds[0]
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, fmt.Errorf("%s descriptor: %w", name, err)
	}
	m.fds = nil
	return fd, nil
}

// takeFile returns it as a file to wait on.
func (m *message) takeFile(name string) (*os.File, error) {
	fd, err := m.takeFD(name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// takeBell returns it as an eventfd to write to.
func (m *message) takeBell() (*bell, error) {
	fd, err := m.takeFD("vring")
	if err != nil {
		return nil, err
	}
	return &bell{fd}, nil
}

// parseHeader checks the head of a message and returns the payload's length.
func parseHeader(b []byte) (req, flags uint32, size int, err error) {
	req = binary.LittleEndian.Uint32(b)
	flags = binary.LittleEndian.Uint32(b[4:])
	length := binary.LittleEndian.Uint32(b[8:])
	switch {
	case flags&flagVersion != wireVersion:
		err = fmt.Errorf("%w: version %d", errWire, flags&flagVersion)
	case flags&flagReply != 0:
		err = fmt.Errorf("%w: a reply nobody asked for, to request %d", errWire, req)
	case length > maxPayload:
		err = fmt.Errorf("%w: request %d of %d bytes, at most %d", errWire, req, length, maxPayload)
	}
	return req, flags, int(length), err
}

// readMessage reads one request and the descriptors that came with it.
func readMessage(c *net.UnixConn) (m message, err error) {
	defer func() {
		if err != nil {
			m.closeFDs()
		}
	}()
	var head [wireHeader]byte
	if err := readFull(c, head[:], &m.fds); err != nil {
		return m, err
	}
	var size int
	if m.req, m.flags, size, err = parseHeader(head[:]); err != nil {
		return m, err
	}
	m.payload = make([]byte, size)
	return m, readFull(c, m.payload, &m.fds)
}

// readFull fills b and collects the descriptors on the way.
func readFull(c *net.UnixConn, b []byte, fds *[]int) error {
	oob := make([]byte, unix.CmsgSpace(4*maxTable))
	for len(b) > 0 {
		n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
		if oobn > 0 {
			got, perr := parseRights(oob[:oobn])
			*fds = append(*fds, got...)
			err = errors.Join(err, perr)
		}
		if err != nil {
			return err
		}
		if flags&unix.MSG_CTRUNC != 0 || len(*fds) > maxTable {
			return fmt.Errorf("%w: more than %d descriptors in a message", errWire, maxTable)
		}
		if n == 0 {
			return net.ErrClosed
		}
		b = b[n:]
	}
	return nil
}

// parseRights returns the descriptors in control messages.
func parseRights(oob []byte) (fds []int, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fds, fmt.Errorf("parse descriptors: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// reply builds the answer to a request.
func reply(req uint32, payload []byte) []byte {
	b := make([]byte, wireHeader, wireHeader+len(payload))
	binary.LittleEndian.PutUint32(b, req)
	binary.LittleEndian.PutUint32(b[4:], wireVersion|flagReply)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	return append(b, payload...)
}

// u64 returns the payload of a request that is one word.
func (m *message) u64() (uint64, error) {
	if len(m.payload) != 8 {
		return 0, fmt.Errorf("%w: request %d of %d bytes, want 8", errWire, m.req, len(m.payload))
	}
	return binary.LittleEndian.Uint64(m.payload), nil
}

// vringState returns the payload of a request about one ring.
func (m *message) vringState() (index, num uint32, err error) {
	if len(m.payload) != 8 {
		return 0, 0, fmt.Errorf("%w: request %d of %d bytes, want 8", errWire, m.req, len(m.payload))
	}
	index = binary.LittleEndian.Uint32(m.payload)
	if index >= numQueues {
		return 0, 0, fmt.Errorf("%w: request %d for ring %d of %d", errWire, m.req, index, numQueues)
	}
	return index, binary.LittleEndian.Uint32(m.payload[4:]), nil
}

// vringAddr is where a ring is, in the front end's address space.
type vringAddr struct {
	index             uint32
	desc, used, avail uint64
}

func (m *message) vringAddr() (a vringAddr, err error) {
	if len(m.payload) != 40 {
		return a, fmt.Errorf("%w: address of a ring in %d bytes, want 40", errWire, len(m.payload))
	}
	le := binary.LittleEndian
	a = vringAddr{le.Uint32(m.payload), le.Uint64(m.payload[8:]), le.Uint64(m.payload[16:]), le.Uint64(m.payload[24:])}
	switch flags := le.Uint32(m.payload[4:]); {
	case a.index >= numQueues:
		err = fmt.Errorf("%w: address of ring %d of %d", errWire, a.index, numQueues)
	case flags != 0:
		err = fmt.Errorf("%w: ring %d asks for logging, which was not offered", errWire, a.index)
	}
	return a, err
}

// regionAt is one region of guest memory as the front end describes it.
type regionAt struct{ guest, size, user, offset uint64 }

func parseRegion(b []byte) regionAt {
	le := binary.LittleEndian
	return regionAt{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
}

// memTable returns the regions of a memory table.
func (m *message) memTable() ([]regionAt, error) {
	if len(m.payload) < 8 {
		return nil, fmt.Errorf("%w: memory table of %d bytes", errWire, len(m.payload))
	}
	n := binary.LittleEndian.Uint32(m.payload)
	if n > maxTable || len(m.payload) < 8+int(n)*regionBytes {
		return nil, fmt.Errorf("%w: memory table of %d regions in %d bytes, at most %d regions", errWire, n, len(m.payload), maxTable)
	}
	if int(n) != len(m.fds) {
		return nil, fmt.Errorf("%w: memory table of %d regions with %d descriptors", errWire, n, len(m.fds))
	}
	table := make([]regionAt, n)
	for i := range table {
		table[i] = parseRegion(m.payload[8+i*regionBytes:])
	}
	return table, nil
}

// oneRegion returns the region of an addition or removal.
func (m *message) oneRegion() (regionAt, error) {
	if len(m.payload) < 8+regionBytes {
		return regionAt{}, fmt.Errorf("%w: memory region of %d bytes", errWire, len(m.payload))
	}
	return parseRegion(m.payload[8:]), nil
}
