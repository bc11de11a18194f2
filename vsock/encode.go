package vsock

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// The messages are encoded by hand. The CBOR library finds its way through
// reflection, which costs a guest more than 20 ms at its first message under
// emulation; three flat structs need none of that. The names are those in the
// structs' tags, by which the host decodes; a test holds both together.

// The major types of CBOR (RFC 8949, section 3.1), as the upper bits of a head.
const (
	cborUnsigned = 0 << 5
	cborNegative = 1 << 5
	cborText     = 3 << 5
	cborArray    = 4 << 5
	cborMap      = 5 << 5
	cborFalse    = 0xf4
	cborTrue     = 0xf5
	cborFloat64  = 0xfb
)

// cborBuf is CBOR under construction.
type cborBuf []byte

func (b *cborBuf) head(major byte, n uint64) {
	switch {
	case n < 24:
		*b = append(*b, major|byte(n))
	case n <= math.MaxUint8:
		*b = append(*b, major|24, byte(n))
	case n <= math.MaxUint16:
		*b = binary.BigEndian.AppendUint16(append(*b, major|25), uint16(n))
	case n <= math.MaxUint32:
		*b = binary.BigEndian.AppendUint32(append(*b, major|26), uint32(n))
	default:
		*b = binary.BigEndian.AppendUint64(append(*b, major|27), n)
	}
}

func (b *cborBuf) text(s string) {
	b.head(cborText, uint64(len(s)))
	*b = append(*b, s...)
}

func (b *cborBuf) int(n int64) {
	if n < 0 {
		b.head(cborNegative, uint64(-(n + 1)))
		return
	}
	b.head(cborUnsigned, uint64(n))
}

func (b *cborBuf) bool(v bool) {
	if v {
		*b = append(*b, cborTrue)
		return
	}
	*b = append(*b, cborFalse)
}

func (b *cborBuf) float(v float64) {
	*b = binary.BigEndian.AppendUint64(append(*b, cborFloat64), math.Float64bits(v))
}

// message is one of Hello, Event and Bye.
type message interface{ appendTo(b *cborBuf) }

func (h Hello) appendTo(b *cborBuf) {
	b.head(cborMap, 6)
	b.text("version")
	b.text(h.Version)
	b.text("protocol")
	b.int(int64(h.Protocol))
	b.text("kernel_release")
	b.text(h.KernelRelease)
	b.text("machine")
	b.text(h.Machine)
	b.text("need_spec")
	b.bool(h.NeedSpec)
	b.text("boot_ms")
	b.head(cborMap, uint64(len(h.BootMs)))
	for _, stage := range slices.Sorted(maps.Keys(h.BootMs)) {
		b.text(stage)
		b.float(h.BootMs[stage])
	}
}

func (e Event) appendTo(b *cborBuf) {
	fields := uint64(3)
	for _, there := range []bool{len(e.Groups) > 0, e.Group != "", e.Phase != "", e.Step != 0, len(e.Counters) > 0} {
		if there {
			fields++
		}
	}
	b.head(cborMap, fields)
	b.text("kind")
	b.text(e.Kind)
	b.text("text")
	b.text(e.Text)
	b.text("at_ns")
	b.int(e.AtNs)
	e.appendGroups(b)
	if e.Group != "" {
		b.text("group")
		b.text(e.Group)
	}
	if e.Phase != "" {
		b.text("phase")
		b.text(e.Phase)
	}
	if e.Step != 0 {
		b.text("step")
		b.int(int64(e.Step))
	}
	e.appendCounters(b)
}

func (e Event) appendGroups(b *cborBuf) {
	if len(e.Groups) == 0 {
		return
	}
	b.text("groups")
	b.head(cborArray, uint64(len(e.Groups)))
	for _, g := range e.Groups {
		b.head(cborMap, 3)
		b.text("index")
		b.int(int64(g.Index))
		b.text("alive")
		b.int(int64(g.Alive))
		b.text("iterations")
		b.head(cborUnsigned, g.Iterations)
	}
}

func (e Event) appendCounters(b *cborBuf) {
	if len(e.Counters) == 0 {
		return
	}
	b.text("counters")
	b.head(cborMap, uint64(len(e.Counters)))
	for _, name := range slices.Sorted(maps.Keys(e.Counters)) {
		b.text(name)
		b.head(cborUnsigned, e.Counters[name])
	}
}

func (m Bye) appendTo(b *cborBuf) {
	b.head(cborMap, 2)
	b.text("status")
	b.int(int64(m.Status))
	b.text("text")
	b.text(m.Text)
}

// encode returns the wire form of a message.
func encode(t FrameType, m message) ([]byte, error) {
	var b cborBuf
	m.appendTo(&b)
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("encode %v: %d bytes, limit %d: %w", t, len(b), MaxMessage, ErrTooLarge)
	}
	return b, nil
}
