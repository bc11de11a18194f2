package qemu

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		writes []string
		want   string
	}{
		{nil, ""},
		{[]string{"abc"}, "abc"},
		{[]string{"abc", "defg"}, "cdefg"},
		{[]string{"abcdefghijkl"}, "hijkl"},
		{[]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}, "hijkl"},
		{[]string{"abcd", "efghi", "j"}, "fghij"},
		{[]string{"abcde", "fghij", "k", ""}, "ghijk"},
	} {
		b := tail{limit: 5}
		total := 0
		for _, w := range tt.writes {
			total += len(w)
			if n, err := b.Write([]byte(w)); n != len(w) || err != nil {
				t.Fatalf("%q: wrote %d, %v", tt.writes, n, err)
			}
		}
		if got := string(b.Bytes()); got != tt.want || b.Total() != int64(total) {
			t.Errorf("%q: got %q of %d, want %q of %d", tt.writes, got, b.Total(), tt.want, total)
		}
	}
}

// gate is a writer that waits for its turn.
type gate struct {
	open chan struct{}
	got  bytes.Buffer
	err  error
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	if g.err != nil {
		return 0, g.err
	}
	return g.got.Write(p)
}

func flushed(s *sink, within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	s.flush(ctx.Done())
}

func TestSinkKeepsItsLimit(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	s := newSink(g, 100)
	for range 1000 {
		s.write([]byte("0123456789"))
	}
	close(g.open)
	s.close()
	flushed(s, patience)
	lost, err := s.lost()
	if err != nil || lost < 10000-200 || int64(g.got.Len())+lost != 10000 {
		t.Errorf("%d bytes written, %d lost, %v", g.got.Len(), lost, err)
	}
	if !strings.HasPrefix(g.got.String(), "0123456789") {
		t.Errorf("got %q", g.got.String())
	}
}

func TestSinkThatFailsLosesTheRest(t *testing.T) {
	g := &gate{open: make(chan struct{}), err: errors.New("disk full")}
	close(g.open)
	s := newSink(g, 100)
	s.write([]byte("one"))
	s.write([]byte("two"))
	s.close()
	flushed(s, patience)
	if lost, err := s.lost(); lost != 6 || err != g.err {
		t.Errorf("%d lost, %v", lost, err)
	}
}

func TestSinkThatBlocksIsLeftBehind(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	defer close(g.open)
	s := newSink(g, 100)
	s.write([]byte("one"))
	s.write([]byte("two"))
	s.close()
	flushed(s, 10*time.Millisecond)
	if lost, _ := s.lost(); lost > 6 {
		t.Errorf("%d lost of 6", lost)
	}
}
