package vsock

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// HostSilence is how long a host that has sent a beat may send nothing before
// a guest takes it for gone.
const HostSilence = 30 * time.Second

// secondLook is how long a guest listens once more then. It may be the guest that
// did not run, under a scheduler that stalled: what came meanwhile waits to be read.
const secondLook = 2 * time.Second

// Watch listens to the host from now on, and returns a channel that is closed
// when the host has left: it closed the link, refused to go on, or was silent
// for HostSilence. Err then says which. Call it at most once, after ReceiveSpec.
func (g *Guest) Watch() <-chan struct{} {
	g.mu.Lock()
	g.answered = make(chan struct{})
	g.mu.Unlock()
	if set := g.deadlineSetter(readDeadline); set != nil {
		_ = set(time.Time{}) // that of ReceiveSpec; where it cannot be lifted it was not set
	}
	go g.listen()
	return g.lost
}

// Err says why the host has left, in an error that matches ErrRefused, ErrSilent,
// ErrTorn or the stream's own; nil while it is there.
func (g *Guest) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left
}

// hostLeft makes all writes fail at once instead of by their timeout.
func (g *Guest) hostLeft(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == nil {
		g.left = fmt.Errorf("the host has left: %w", err)
		close(g.lost)
	}
}

// listen reads what the host sends until it has left or said bye.
func (g *Guest) listen() {
	wait := time.Duration(0) // until a beat has come
	for {
		f, err := g.read(wait)
		if errors.Is(err, ErrSilent) {
			f, err = g.read(min(wait, secondLook))
		}
		switch {
		case errors.Is(err, io.EOF):
			g.hostLeft(fmt.Errorf("it closed the link: %w", ErrTorn))
			return
		case err != nil:
			g.hostLeft(err)
			return
		case f.Type == TypeBeat:
			wait = g.beat
		case f.Type == TypeBye:
			g.hostSaidBye(f)
			return
		default:
			if err := skip(f); err != nil {
				g.hostLeft(err)
				return
			}
		}
	}
}

// read reads a frame, within a time if there is one.
func (g *Guest) read(wait time.Duration) (f Frame, err error) {
	if wait == 0 {
		return g.r.ReadFrame()
	}
	err = g.bounded(readDeadline, wait, func() error {
		f, err = g.r.ReadFrame()
		return err
	})
	return f, err
}

// hostSaidBye: the host has answered, or it refuses to go on.
func (g *Guest) hostSaidBye(f Frame) {
	g.mu.Lock()
	said := g.bye
	g.mu.Unlock()
	if !said {
		g.hostLeft(refusal(f))
		return
	}
	close(g.answered)
}

// awaitAnswer waits for the host's bye.
func (g *Guest) awaitAnswer() error {
	g.mu.Lock()
	answered := g.answered
	g.mu.Unlock()
	if answered == nil {
		return g.bounded(readDeadline, AckTimeout, func() error {
			for {
				f, err := g.r.ReadFrame()
				if errors.Is(err, io.EOF) {
					return ErrNoBye
				}
				if err != nil || f.Type == TypeBye {
					return err
				}
			}
		})
	}
	t := time.NewTimer(AckTimeout)
	defer t.Stop()
	select {
	case <-answered:
		return nil
	case <-g.lost:
		return g.Err()
	case <-t.C:
		return fmt.Errorf("no answer in %v: %w", AckTimeout, ErrSilent)
	}
}
