package spawn

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// mapping is a range of addresses.
type mapping struct{ lo, hi uintptr }

// runtimeMemory lists the private anonymous mappings of this process that have
// pages, outside the area and the program's own data: the Go heap, goroutine stacks
// and what the runtime keeps beside them. Workers never touch any of it. The
// addresses that the runtime holds for later are not among them: a fork is quicker
// to copy a mapping without pages than to leave it out.
func runtimeMemory(area *bare.Area) []mapping {
	lo, hi := area.Range()
	maps, err := readMaps()
	if err != nil {
		return nil // forks copy more than they need, nothing else
	}
	found := make([]mapping, 0, 64)
	var program uintptr // end of the mappings of the program's file and its bss
	for line := range bytes.Lines(maps) {
		m, anonymous, ok := parseMapping(line)
		switch {
		case !ok:
		case !anonymous || m.lo == program:
			program = m.hi
		case m.hi <= lo || m.lo >= hi:
			if n := len(found); n > 0 && found[n-1].hi == m.lo {
				found[n-1].hi = m.hi
			} else {
				found = append(found, m)
			}
		}
	}
	return found
}

// maxMaps bounds what is read of /proc/self/maps: a million mappings.
const maxMaps = 128 << 20

// readMaps reads /proc/self/maps, with no more calls than it needs.
func readMaps() ([]byte, error) {
	fd, err := unix.Open("/proc/self/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	maps := make([]byte, 0, 16<<10)
	for len(maps) < maxMaps {
		maps = slices.Grow(maps, 4096)
		n, err := unix.Read(fd, maps[len(maps):cap(maps)])
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		maps = maps[:len(maps)+n]
	}
	return maps, nil
}

// parseMapping reads a line of /proc/PID/maps, such as
//
//	7f8532d46000-7f8532d60000 rw-p 00000000 00:00 0 [name]
//
// ok if it is private, can be written and is not executable; anonymous if no file is
// behind it.
func parseMapping(line []byte) (m mapping, anonymous, ok bool) {
	lo, rest, ok1 := bytes.Cut(line, []byte("-"))
	hi, rest, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || len(rest) < 5 || string(rest[:4]) != "rw-p" {
		return m, false, false
	}
	_, rest, _ = bytes.Cut(rest[5:], []byte(" ")) // offset
	_, rest, _ = bytes.Cut(rest, []byte(" "))     // device
	inode, _, _ := bytes.Cut(bytes.TrimRight(rest, "\n"), []byte(" "))
	m.lo, ok1 = hexNumber(lo)
	m.hi, ok2 = hexNumber(hi)
	anonymous = string(inode) == "0"
	return m, anonymous, ok1 && ok2
}

func hexNumber(text []byte) (v uintptr, ok bool) {
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uintptr(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uintptr(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, len(text) > 0
}

// rescanBirths is after how many births the heap is looked at again: it may have
// grown.
const rescanBirths = 500

// excluded is the runtime's memory, which births leave out.
type excluded struct {
	area *bare.Area
	maps []mapping
}

// excludeHeap leaves the runtime's memory out of the births on the area.
func excludeHeap(area *bare.Area) *excluded {
	e := &excluded{area: area}
	e.rescan()
	return e
}

// rescan leaves out what has come since too.
func (e *excluded) rescan() {
	e.maps = runtimeMemory(e.area)
	advise(e.maps, unix.MADV_DONTFORK)
}

// restore makes forks copy everything again.
func (e *excluded) restore() { advise(e.maps, unix.MADV_DOFORK) }

// advise sets MADV_DONTFORK or MADV_DOFORK on the mappings. A mapping that went
// away meanwhile is no error.
func advise(maps []mapping, advice int) {
	for _, m := range maps {
		unix.Syscall(unix.SYS_MADVISE, m.lo, m.hi-m.lo, uintptr(advice))
	}
}
