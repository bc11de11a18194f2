package vsock

import (
	"fmt"
	"sync"
	"time"
)

// maxWaiting is how many events wait for a slow host. Above it they are
// dropped: no worker and no step of a run ever waits for the host.
const maxWaiting = 1024

// outbox holds the events that wait to be sent.
type outbox struct {
	mu      sync.Mutex
	waiting []Event // guarded by mu
	sending bool    // guarded by mu: a goroutine takes from waiting
	dropped int     // guarded by mu
	idle    chan struct{}
}

// Event has an event sent and does not wait for that. Its text is cut to
// MaxText bytes, its groups to MaxGroups. While the host is slow, progress that
// waits gives way to newer progress, and other events are dropped above a
// limit; the host is told how many. An error says that the host has left, and
// is final.
func (g *Guest) Event(e Event) error {
	if err := g.Err(); err != nil {
		return fmt.Errorf("send %s event: %w", e.Kind, err)
	}
	e.Text, e.Group, e.Phase = clip(e.Text), clip(e.Group), clip(e.Phase)
	if len(e.Counters) > MaxCounters {
		return fmt.Errorf("send %s event: %d counters, at most %d: %w", e.Kind, len(e.Counters), MaxCounters, ErrTooLarge)
	}
	e.Groups = e.Groups[:min(len(e.Groups), MaxGroups)]
	o := &g.events
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.waiting); e.Kind == EventProgress && n > 0 && o.waiting[n-1].Kind == EventProgress {
		o.waiting[n-1] = e
		return nil
	}
	if len(o.waiting) >= maxWaiting && e.Kind != EventFatal {
		o.dropped++
		return nil
	}
	o.waiting = append(o.waiting, e)
	if !o.sending {
		o.sending, o.idle = true, make(chan struct{})
		go g.sendEvents()
	}
	return nil
}

// sendEvents sends what waits and ends when there is nothing more.
func (g *Guest) sendEvents() {
	o := &g.events
	for {
		o.mu.Lock()
		if len(o.waiting) == 0 {
			o.sending = false
			close(o.idle)
			o.mu.Unlock()
			return
		}
		e, dropped := o.waiting[0], o.dropped
		o.waiting = o.waiting[1:]
		if dropped > 0 {
			o.dropped = 0
		}
		o.mu.Unlock()
		if dropped > 0 {
			lost := Event{Kind: EventLog, Text: fmt.Sprintf("%d events are lost: the host is too slow", dropped), AtNs: e.AtNs}
			_ = g.send(TypeEvent, 0, lost) // the next one meets the same error
		}
		if err := g.send(TypeEvent, 0, e); err != nil && g.Err() != nil {
			o.mu.Lock()
			o.waiting = nil
			o.mu.Unlock()
		}
	}
}

// flush waits until all events are sent, or the host has left.
func (g *Guest) flush() error {
	o := &g.events
	o.mu.Lock()
	idle := o.idle
	o.mu.Unlock()
	if idle == nil {
		return nil
	}
	t := time.NewTimer(g.timeout)
	defer t.Stop()
	select {
	case <-idle:
		return nil
	case <-g.lost:
		return g.Err()
	case <-t.C:
		return fmt.Errorf("no progress in %v: %w", g.timeout, ErrSilent)
	}
}
