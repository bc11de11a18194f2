package qemu

import (
	"io"
	"sync"
	"time"
)

const (
	consoleTail = 64 << 10
	stderrTail  = 8 << 10
	// sinkChunks of at most sinkChunk bytes wait for a slow sink: 1 MiB.
	sinkChunks = 256
	sinkChunk  = 4 << 10
	sinkFlush  = 2 * time.Second
)

// drain copies the console to its tail, its watch and the caller's sink until
// the guest's end closes. Nothing here waits for the sink: a console that is
// not read stops the guest.
type drain struct {
	*ConsoleWatch
	tail tail
	sink *sink
}

func newDrain(to io.Writer) *drain {
	d := &drain{ConsoleWatch: NewConsoleWatch(), tail: tail{limit: consoleTail}}
	if to != nil {
		d.sink = newSink(to)
	}
	return d
}

func (d *drain) run(from io.Reader) {
	buf := make([]byte, sinkChunk)
	for {
		n, err := from.Read(buf)
		d.tail.Write(buf[:n])
		d.Write(buf[:n])
		if d.sink != nil {
			d.sink.write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	d.Close()
	if d.sink != nil {
		d.sink.close()
	}
}

// sink writes to w from a goroutine of its own and drops what w is too slow
// for.
type sink struct {
	w       io.Writer
	queue   chan []byte
	done    chan struct{}
	mu      sync.Mutex
	dropped int64
	err     error
}

func newSink(w io.Writer) *sink {
	s := &sink{w: w, queue: make(chan []byte, sinkChunks), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *sink) run() {
	defer close(s.done)
	for p := range s.queue {
		n, err := 0, s.failed()
		if err == nil {
			n, err = s.w.Write(p)
		}
		s.mu.Lock()
		s.dropped += int64(len(p) - n)
		s.err = firstError(s.err, err)
		s.mu.Unlock()
	}
}

func (s *sink) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *sink) write(p []byte) {
	if len(p) == 0 {
		return
	}
	select {
	case s.queue <- append([]byte(nil), p...):
	default:
		s.mu.Lock()
		s.dropped += int64(len(p))
		s.mu.Unlock()
	}
}

// close flushes, for a bounded time: a writer that blocks for ever is left
// behind with its goroutine.
func (s *sink) close() {
	close(s.queue)
	t := time.NewTimer(sinkFlush)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
		for p := range s.queue {
			s.mu.Lock()
			s.dropped += int64(len(p))
			s.mu.Unlock()
		}
	}
}

// lost says how many bytes the sink did not take, and its error if it had one.
func (s *sink) lost() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped, s.err
}
