package spawn

import "time"

// A bound on a wait for many workers is meant for one that hangs. Thousands that
// are all on their way take a small machine longer, and must not be given up for
// that: as long as some get there each stallTimeout, the wait goes on, for at most
// workerTime more for each of them.
const (
	stallTimeout = time.Second
	workerTime   = 20 * time.Millisecond
)

// patience is a wait for the workers of a handle.
type patience struct {
	deadline time.Time
	last     time.Time // that progress can move the deadline to
}

// patience begins a wait of at most timeout, and more while there is progress.
func (h *Handle) patience(timeout time.Duration) *patience {
	p := until(time.Now().Add(timeout))
	p.last = p.last.Add(time.Duration(len(h.members)) * workerTime)
	return p
}

// until is a wait that progress does not make longer.
func until(deadline time.Time) *patience { return &patience{deadline: deadline, last: deadline} }

// left is how long to wait from now on.
func (p *patience) left() time.Duration { return time.Until(p.deadline) }

// progress says that workers got there.
func (p *patience) progress() {
	d := time.Now().Add(stallTimeout)
	if d.After(p.last) {
		d = p.last
	}
	if d.After(p.deadline) {
		p.deadline = d
	}
}
