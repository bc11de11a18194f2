package launch

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Bounds of a Pump: lines that wait, and the wait for them at the end.
const (
	pumpLines = 4096
	pumpWait  = 5 * time.Second
)

// ErrSlow is matched by what Pump.Close says of a reader that left lines behind.
var ErrSlow = errors.New("whoever reads them is too slow")

// Pump is a writer that never waits: what it is given is written from a goroutine
// of its own. A reader that is too slow loses lines and stops nobody. Write and
// Close are for one goroutine.
type Pump struct {
	lines chan []byte
	done  chan struct{}
	lost  int
	err   atomic.Pointer[error]
}

// NewPump returns a pump into w.
func NewPump(w io.Writer) *Pump {
	p := &Pump{lines: make(chan []byte, pumpLines), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for l := range p.lines {
			if p.err.Load() != nil {
				continue
			}
			if _, err := w.Write(l); err != nil {
				p.err.Store(&err)
			}
		}
	}()
	return p
}

// Write takes a line. Its error is always nil.
func (p *Pump) Write(b []byte) (int, error) {
	select {
	case p.lines <- append([]byte(nil), b...):
	default:
		p.lost++
	}
	return len(b), nil
}

// Close waits until everything is written, at most 5 s, and says what is not.
func (p *Pump) Close() error {
	close(p.lines)
	t := time.NewTimer(pumpWait)
	defer t.Stop()
	var err error
	select {
	case <-p.done:
		if e := p.err.Load(); e != nil {
			err = *e
		}
	case <-t.C:
		err = fmt.Errorf("%d lines are not taken after %v: %w", len(p.lines), pumpWait, ErrSlow)
	}
	if p.lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d lines are lost: %w", p.lost, ErrSlow))
	}
	return err
}
