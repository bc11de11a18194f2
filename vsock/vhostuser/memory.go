package vhostuser

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// maxRegion bounds one region of guest memory and its offset, in bytes, so that
// sums of two stay far from the limits of the types.
const maxRegion = 1 << 46

// region is a piece of guest memory, mapped.
type region struct {
	regionAt
	data    []byte // of size bytes
	mapping []byte // data and what lies before it in the file
}

// memory is the guest's memory. It does not change; a new table makes a new one.
type memory struct{ regions []*region }

// mapRegion maps a region from the front end's descriptor, which it leaves open.
func mapRegion(at regionAt, fd int) (*region, error) {
	if at.size == 0 || at.size > maxRegion || at.offset > maxRegion ||
		at.guest+at.size < at.guest || at.user+at.size < at.user {
		return nil, fmt.Errorf("%w: memory region %#x+%#x at offset %#x", errWire, at.guest, at.size, at.offset)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat guest memory: %w", err)
	}
	// An access beyond the end of the file would be a SIGBUS.
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < 0 || uint64(st.Size) < at.offset+at.size {
		return nil, fmt.Errorf("%w: memory region %#x+%#x at offset %#x of a file of %#x bytes; is it memory-backend-memfd or -file with share=on?",
			errWire, at.guest, at.size, at.offset, st.Size)
	}
	// From the start of the file: with huge pages the offset need not be one
	// that mmap takes.
	mapping, err := unix.Mmap(fd, 0, int(at.offset+at.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map guest memory %#x+%#x: %w", at.guest, at.size, err)
	}
	return &region{regionAt: at, data: mapping[at.offset:], mapping: mapping}, nil
}

func (r *region) unmap() { _ = unix.Munmap(r.mapping) } // it fails only for what is not mapped

// with returns a memory that has r too.
func (m *memory) with(r *region) (*memory, error) {
	for _, o := range m.regions {
		if overlap(o.guest, r.guest, o.size, r.size) || overlap(o.user, r.user, o.size, r.size) {
			return nil, fmt.Errorf("%w: memory regions %#x+%#x and %#x+%#x overlap", errWire, o.guest, o.size, r.guest, r.size)
		}
	}
	return &memory{append(slices.Clone(m.regions), r)}, nil
}

func overlap(a, b, na, nb uint64) bool { return a < b+nb && b < a+na }

// at returns the bytes from the guest physical address on, at most n, less
// where the region ends, and nil where no memory is.
func (m *memory) at(addr, n uint64) []byte {
	for _, r := range m.regions {
		if off := addr - r.guest; addr >= r.guest && off < r.size {
			return r.data[off:][:min(n, r.size-off)]
		}
	}
	return nil
}

// gather appends the n bytes from the guest physical address on to bufs. They
// may lie in several regions.
func (m *memory) gather(bufs [][]byte, addr, n uint64) ([][]byte, bool) {
	for n > 0 {
		b := m.at(addr, n)
		if b == nil {
			return bufs, false
		}
		bufs = append(bufs, b)
		addr += uint64(len(b))
		n -= uint64(len(b))
	}
	return bufs, true
}

// user returns the n bytes at an address of the front end, which must lie in
// one region.
func (m *memory) user(addr, n uint64) []byte {
	for _, r := range m.regions {
		if off := addr - r.user; addr >= r.user && off < r.size && n <= r.size-off {
			return r.data[off:][:n:n]
		}
	}
	return nil
}
