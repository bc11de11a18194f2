package qemu

import (
	"context"
	"io"
	"sync"
	"time"
)

const (
	consoleTail = 64 << 10
	stderrTail  = 8 << 10
	sinkLimit   = 4 << 20 // bytes that wait for a slow sink
	sinkFlush   = 2 * time.Second
)

// drain copies the console to its tail, its watch and the caller's sinks until
// the guest's end closes. Nothing here waits for a sink: a console that is not
// read stops the guest.
type drain struct {
	*ConsoleWatch
	tail  tail
	sinks []*sink
}

func newDrain(to []io.Writer) *drain {
	d := &drain{ConsoleWatch: NewConsoleWatch(), tail: tail{limit: consoleTail}}
	for _, w := range to {
		d.sinks = append(d.sinks, newSink(w, sinkLimit))
	}
	return d
}

func (d *drain) run(from io.Reader) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		d.tail.Write(buf[:n])
		d.Write(buf[:n])
		for _, s := range d.sinks {
			s.write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	d.Close()
	for _, s := range d.sinks {
		s.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), sinkFlush)
	defer cancel()
	for _, s := range d.sinks {
		s.flush(ctx.Done())
	}
}

// sink writes to w from a goroutine of its own and drops what w is too slow
// for.
type sink struct {
	w     io.Writer
	limit int
	wake  chan struct{} // holds a token when there is news
	done  chan struct{} // closed when all is written

	mu      sync.Mutex
	buf     []byte // waits for w, at most limit bytes
	closed  bool
	dropped int64
	err     error
}

func newSink(w io.Writer, limit int) *sink {
	s := &sink{w: w, limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *sink) run() {
	defer close(s.done)
	var spare []byte
	for {
		p, last := s.take(spare)
		if len(p) > 0 {
			n, err := s.w.Write(p)
			s.wrote(len(p)-n, err)
		} else if last {
			return
		} else {
			<-s.wake
		}
		spare = p[:0]
	}
}

// take swaps the buffer for an empty one. A sink that has failed is never
// given anything again.
func (s *sink) take(spare []byte) (p []byte, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, s.buf = s.buf, spare
	if s.err != nil {
		s.dropped += int64(len(p))
		p = p[:0]
	}
	return p, s.closed
}

func (s *sink) wrote(short int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped += int64(short)
	s.err = firstError(s.err, err)
}

// write never blocks.
func (s *sink) write(p []byte) {
	s.mu.Lock()
	if len(s.buf)+len(p) > s.limit {
		s.dropped += int64(len(p))
	} else {
		s.buf = append(s.buf, p...)
	}
	s.mu.Unlock()
	s.poke()
}

// close says that no more will come.
func (s *sink) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.poke()
}

func (s *sink) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flush waits until all is written or limit closes. A writer that blocks for
// ever is left behind with its goroutine.
func (s *sink) flush(limit <-chan struct{}) {
	select {
	case <-s.done:
	case <-limit:
		s.mu.Lock()
		s.dropped += int64(len(s.buf))
		s.buf = nil
		s.mu.Unlock()
	}
}

// lost says how many bytes the sink did not take, and its error if it had one.
func (s *sink) lost() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped, s.err
}
