package spawn

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// mapping is a range of addresses.
type mapping struct{ lo, hi uintptr }

// runtimeMemory lists the private writable anonymous mappings of this process
// outside the area and the program's own data: the Go heap, goroutine stacks and what
// the runtime keeps beside them. Workers never touch any of it.
func runtimeMemory(area *bare.Area) []mapping {
	lo, hi := area.Range()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil // forks copy more than they need, nothing else
	}
	defer f.Close()
	var found []mapping
	var program uintptr // end of the mappings of the program's file and its bss
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m, anonymous, ok := parseMapping(lines.Text())
		switch {
		case !ok:
		case !anonymous || m.lo == program:
			program = m.hi
		case m.hi <= lo || m.lo >= hi:
			found = append(found, m)
		}
	}
	return found
}

// parseMapping reads a line of /proc/PID/maps; ok if it is private and writable.
func parseMapping(line string) (m mapping, anonymous, ok bool) {
	f := strings.Fields(line)
	if len(f) < 5 || f[1] != "rw-p" {
		return m, false, false
	}
	lo, hi, _ := strings.Cut(f[0], "-")
	l, err1 := strconv.ParseUint(lo, 16, 64)
	h, err2 := strconv.ParseUint(hi, 16, 64)
	return mapping{uintptr(l), uintptr(h)}, f[4] == "0", err1 == nil && err2 == nil
}

// advise sets MADV_DONTFORK or MADV_DOFORK on the mappings. A mapping that went
// away meanwhile is no error.
func advise(maps []mapping, advice int) {
	for _, m := range maps {
		unix.Syscall(unix.SYS_MADVISE, m.lo, m.hi-m.lo, uintptr(advice))
	}
}
