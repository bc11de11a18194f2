package vhostuser

import "encoding/binary"

// The packets of virtio-vsock (virtio 1.2, section 5.10.6).
const (
	headerBytes = 44
	hostCID     = 2
	typeStream  = 1

	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opData          = 5
	opCreditUpdate  = 6
	opCreditRequest = 7

	shutReceive = 1
	shutSend    = 2
	shutBoth    = shutReceive | shutSend
)

// header is the head of a packet.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	length           uint32
	typ, op          uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

func parsePacket(b *[headerBytes]byte) header {
	le := binary.LittleEndian
	return header{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]),
		srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		length: le.Uint32(b[24:]),
		typ:    le.Uint16(b[28:]), op: le.Uint16(b[30:]),
		flags:    le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]), fwdCnt: le.Uint32(b[40:]),
	}
}

func (h *header) put(b *[headerBytes]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

// take copies from the front of bufs into p and returns what is left of bufs.
// The slices in bufs are changed, what they point to is not.
func take(p []byte, bufs [][]byte) (n int, rest [][]byte) {
	for len(bufs) > 0 && n < len(p) {
		k := copy(p[n:], bufs[0])
		n += k
		if bufs[0] = bufs[0][k:]; len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
	}
	return n, bufs
}

// spread copies p to the front of bufs and returns what is left of bufs.
func spread(bufs [][]byte, p []byte) [][]byte {
	for len(bufs) > 0 && len(p) > 0 {
		k := copy(bufs[0], p)
		p = p[k:]
		if bufs[0] = bufs[0][k:]; len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
	}
	return bufs
}
