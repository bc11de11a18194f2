package spawn

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
)

// drainTimeout is how long outputs may stay open once all programs have ended.
const drainTimeout = time.Second

// capture keeps the begin and the end of what comes out of a pipe.
type capture struct {
	pipe *os.File
	done chan struct{}

	mu    sync.Mutex
	half  int    // bytes of head, and of tail
	head  []byte // the first
	tail  []byte // the last, a ring once it is full
	at    int    // in tail: where the next byte goes
	total uint64
	open  bool // somebody still has the other end
}

// newCapture reads from a pipe, which it then owns, until nobody has its other
// end, and keeps limit bytes.
func newCapture(fd, limit int) (*capture, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare pipe: %w", err)
	}
	c := &capture{pipe: os.NewFile(uintptr(fd), "output"), done: make(chan struct{}), half: limit / 2, open: true}
	go c.read()
	return c, nil
}

func (c *capture) read() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := c.pipe.Read(buf)
		c.mu.Lock()
		c.add(buf[:n])
		if err != nil {
			c.open = os.IsTimeout(err)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// add keeps what fits of b.
func (c *capture) add(b []byte) {
	c.total += uint64(len(b))
	n := min(len(b), c.half-len(c.head))
	c.head, b = append(c.head, b[:n]...), b[n:]
	b = b[max(len(b)-c.half, 0):]
	n = min(len(b), c.half-len(c.tail))
	c.tail, b = append(c.tail, b[:n]...), b[n:]
	for len(b) > 0 {
		n = copy(c.tail[c.at:], b)
		c.at, b = (c.at+n)%len(c.tail), b[n:]
	}
}

// end waits until nobody has the other end of the pipe, at most for a time, and
// closes the pipe; false if somebody still had it. It can be called again.
func (c *capture) end(wait time.Duration) bool {
	if c == nil {
		return true
	}
	_ = c.pipe.SetReadDeadline(time.Now().Add(wait)) // a pipe has deadlines
	<-c.done
	c.pipe.Close()
	return !c.open
}

// output is what was kept.
func (c *capture) output() *report.Output {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &report.Output{Bytes: c.total}
	tail := string(c.tail[c.at:]) + string(c.tail[:c.at])
	if o.Omitted = c.total - uint64(len(c.head)+len(tail)); o.Omitted == 0 {
		o.Head = valid(string(c.head) + tail)
	} else {
		o.Head, o.Tail = valid(string(c.head)), valid(tail)
	}
	return o
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
