package guest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of the console: a host that does not drain it must not stop the guest.
const (
	consoleQueue = 256             // lines that wait
	consoleWait  = 5 * time.Second // for room for a line that must not be lost, and for the end
)

// console puts lines on the machine's console from a goroutine of its own.
type console struct {
	lines   chan string
	flushes chan chan struct{}
	lost    atomic.Int64 // lines for which there was no room
}

func newConsole(w io.Writer) *console {
	c := &console{lines: make(chan string, consoleQueue), flushes: make(chan chan struct{})}
	go c.serve(w)
	return c
}

func (c *console) serve(w io.Writer) {
	for {
		select {
		case l := <-c.lines:
			io.WriteString(w, l) // nowhere to tell a failure to
			continue
		default:
		}
		select {
		case l := <-c.lines:
			io.WriteString(w, l)
		case done := <-c.flushes:
			if f, ok := w.(*os.File); ok {
				// TCSBRK with an argument waits until the tty has sent all.
				_ = unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
			}
			close(done)
		}
	}
}

// printf puts a line on the console if there is room for it.
func (c *console) printf(format string, args ...any) {
	select {
	case c.lines <- consoleLine(fmt.Sprintf(format, args...)):
	default:
		c.lost.Add(1)
	}
}

// consoleLine marks every line of a text as ours.
func consoleLine(text string) string {
	text = strings.TrimRight(text, "\n")
	return "guestinit: " + strings.ReplaceAll(text, "\n", "\nguestinit:   ") + "\n"
}

// Write puts a text on the console as it is, waiting for room for a while.
func (c *console) Write(p []byte) (int, error) {
	t := time.NewTimer(consoleWait)
	defer t.Stop()
	select {
	case c.lines <- string(p):
		return len(p), nil
	case <-t.C:
		return 0, fmt.Errorf("write console: no room in %v: %w", consoleWait, os.ErrDeadlineExceeded)
	}
}

// flush waits until everything is on the wire, or consoleWait has passed.
func (c *console) flush() {
	if n := c.lost.Swap(0); n > 0 {
		c.printf("note: %d console lines lost", n)
	}
	t := time.NewTimer(consoleWait)
	defer t.Stop()
	done := make(chan struct{})
	select {
	case c.flushes <- done:
	case <-t.C:
		return
	}
	select {
	case <-done:
	case <-t.C:
	}
}
