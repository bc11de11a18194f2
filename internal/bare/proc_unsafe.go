package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxNodes bounds the NUMA nodes that are counted.
const MaxNodes = 64

// Paths end in NUL for openRead.
const (
	pathSchedstat = "/proc/thread-self/schedstat\x00"
	pathNumaMaps  = "/proc/thread-self/numa_maps\x00"
	pathVmstat    = "/proc/vmstat\x00"
	pathCgroup    = "/proc/thread-self/cgroup\x00"
	pathSched     = "/proc/thread-self/sched\x00"
)

const pagesMigratedKey = "numa_pages_migrated "

// reader hands out a file byte by byte from a buffer on the stack.
type reader struct {
	fd, pos, n int
	buf        [1024]byte
}

// next is the next byte, −1 at the end of the file or on an error.
func (r *reader) next() int {
	if r.pos == r.n {
		n, errno := Read(r.fd, unsafe.Pointer(&r.buf), len(r.buf))
		if errno != 0 || n <= 0 {
			return -1
		}
		r.pos, r.n = 0, n
	}
	c := r.buf[r.pos]
	r.pos++
	return int(c)
}

// number reads a decimal number and the byte behind it.
func (r *reader) number() (v uint64, after int) {
	for {
		c := r.next()
		if c < '0' || c > '9' {
			return v, c
		}
		v = v*10 + uint64(c-'0')
	}
}

// ReadSchedstat reads the task's CPU time, run delay (both nanoseconds) and run
// count from /proc/thread-self/schedstat.
func ReadSchedstat(cpu, delay, count *uint64) unix.Errno {
	fd, errno := openRead(pathSchedstat)
	if errno != 0 {
		return errno
	}
	r := reader{fd: fd}
	*cpu, _ = r.number()
	*delay, _ = r.number()
	*count, _ = r.number()
	Close(fd)
	return 0
}

// ReadNumaPages adds up the pages per node (the N<node>=<pages> words) of
// /proc/thread-self/numa_maps.
func ReadNumaPages(pages *[MaxNodes]uint64) unix.Errno {
	fd, errno := openRead(pathNumaMaps)
	if errno != 0 {
		return errno
	}
	r := reader{fd: fd}
	prev := 0
	for c := r.next(); c >= 0; c = r.next() {
		if prev == ' ' && c == 'N' {
			node, after := r.number()
			if after == '=' {
				var n uint64
				n, after = r.number()
				if node < MaxNodes {
					pages[node] += n
				}
			}
			c = after
		}
		prev = c
	}
	Close(fd)
	return 0
}

// ReadPagesMigrated reads numa_pages_migrated of /proc/vmstat: pages moved by
// automatic NUMA balancing, system-wide. ok is false where the kernel has none.
func ReadPagesMigrated() (pages uint64, ok bool) {
	fd, errno := openRead(pathVmstat)
	if errno != 0 {
		return 0, false
	}
	r := reader{fd: fd}
	matched := 0
	for c := r.next(); c >= 0 && !ok; c = r.next() {
		switch {
		case c == '\n':
			matched = 0
		case matched >= 0 && c == int(pagesMigratedKey[matched]):
			matched++
		default:
			matched = -1
		}
		if matched == len(pagesMigratedKey) {
			pages, _ = r.number()
			ok = true
		}
	}
	Close(fd)
	return pages, ok
}

// ReadCgroup reads the path of the task's cgroup in the v2 hierarchy (the line
// "0::PATH" of /proc/thread-self/cgroup) into path and returns its length, cut to
// what fits; 0 where there is none.
func ReadCgroup(path []byte) int {
	const key = "0::"
	fd, errno := openRead(pathCgroup)
	if errno != 0 {
		return 0
	}
	r := reader{fd: fd}
	matched, n := 0, 0
	for c := r.next(); c >= 0; c = r.next() {
		switch {
		case c == '\n' && matched == len(key):
			Close(fd)
			return n
		case c == '\n':
			matched = 0
		case matched == len(key):
			if n < len(path) {
				path[n] = byte(c)
				n++
			}
		case matched >= 0 && c == int(key[matched]):
			matched++
		default:
			matched = -1
		}
	}
	Close(fd)
	return n
}
