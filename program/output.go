package program

import (
	"fmt"
	"sync"
)

// output is a writer that keeps the first head and the last tail bytes.
type output struct {
	mu         sync.Mutex
	head, tail int
	first      []byte // at most head
	last       []byte // at most 2*tail, so that trimming is rare
	dropped    int64  // out of last
}

// Write never fails and never blocks.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(p)
	if room := min(o.head-len(o.first), len(p)); room > 0 {
		o.first = append(o.first, p[:room]...)
		p = p[room:]
	}
	o.last = append(o.last, p...)
	if len(o.last) > 2*o.tail {
		o.trim()
	}
	return n, nil
}

// trim forgets what is before the tail.
func (o *output) trim() {
	if over := len(o.last) - o.tail; over > 0 {
		o.dropped += int64(over)
		o.last = append([]byte(nil), o.last[over:]...)
	}
}

// text is what is kept, with a line that says what is missing.
func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trim()
	if o.dropped == 0 {
		return string(o.first) + string(o.last)
	}
	return fmt.Sprintf("%s\n[%d bytes left out]\n%s", o.first, o.dropped, o.last)
}
