package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapGuard is the bytes below the memory of MapPrivate that nobody can use: memory
// of two threads would else be one mapping where it adjoins.
const mapGuard = 4096

// MapPrivate maps zeroed private memory that no neighbour can merge with, so
// that numa_maps has it as one line of its own. size is in bytes.
func MapPrivate(size uintptr) (uintptr, unix.Errno) {
	r := Syscall6(unix.SYS_MMAP, 0, size+mapGuard, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, ^uintptr(0), 0)
	if e := Errno(r); e != 0 {
		return 0, e
	}
	addr := r + mapGuard
	if e := Errno(Syscall3(unix.SYS_MPROTECT, addr, size, unix.PROT_READ|unix.PROT_WRITE)); e != 0 {
		Unmap(addr, size)
		return 0, e
	}
	Advise(addr, size, unix.MADV_DONTDUMP)
	return addr, 0
}

// Unmap ends what MapPrivate began: munmap(2).
func Unmap(addr, size uintptr) unix.Errno {
	return Errno(Syscall3(unix.SYS_MUNMAP, addr-mapGuard, size+mapGuard, 0))
}

// Advise wraps madvise(2).
func Advise(addr, size, advice uintptr) unix.Errno {
	return Errno(Syscall3(unix.SYS_MADVISE, addr, size, advice))
}

// BindMoving binds memory to the nodes of a mask and moves what lies elsewhere:
// mbind(2) with MPOL_BIND and MPOL_MF_MOVE.
func BindMoving(addr, size uintptr, nodes uint64) unix.Errno {
	return Errno(Syscall6(unix.SYS_MBIND, addr, size, unix.MPOL_BIND,
		uintptr(unsafe.Pointer(&nodes)), MaxNodes+1, unix.MPOL_MF_MOVE))
}

// ReadNumaPagesOf adds up the pages per node of one mapping, made by MapPrivate.
func ReadNumaPagesOf(addr uintptr, pages *[MaxNodes]uint64) unix.Errno {
	fd, errno := openRead(pathNumaMaps)
	if errno != 0 {
		return errno
	}
	r := reader{fd: fd}
	for {
		start, after := r.hex()
		if after < 0 {
			break
		}
		r.line(pages, after, start == uint64(addr))
	}
	Close(fd)
	return 0
}

// hex reads a hexadecimal number and the byte behind it.
func (r *reader) hex() (v uint64, after int) {
	for {
		c := r.next()
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return v, c
		}
	}
}

// line reads the rest of a line of numa_maps, whose last byte read was prev, and
// adds its pages if they are wanted.
func (r *reader) line(pages *[MaxNodes]uint64, prev int, wanted bool) {
	for c := r.next(); c >= 0 && c != '\n'; c = r.next() {
		if prev == ' ' && c == 'N' {
			node, after := r.number()
			if after == '=' {
				var n uint64
				n, after = r.number()
				if wanted && node < MaxNodes {
					pages[node] += n
				}
			}
			if c = after; c == '\n' {
				return
			}
		}
		prev = c
	}
}
