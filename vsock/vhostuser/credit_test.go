package vhostuser

import (
	"bytes"
	"io"
	"testing"
	"time"
)

// A guest whose own buffer is far smaller than the device's, and which goes no
// further ahead than that, hears in time that there is room again.
func TestLargeBuffer(t *testing.T) {
	for _, buffer := range []int{64 << 10, 1 << 20, 64 << 20} {
		d, g := newGuest(t, Options{Buffer: buffer}, linuxDriver)
		l, err := d.Listen(5)
		if err != nil {
			t.Fatal(err)
		}
		want := noise(3 << 20)
		go func() {
			c, err := g.dial(1000, 5)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Write(want); err != nil {
				t.Error(err)
			}
			c.Close()
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("buffer of %d: %d bytes of %d: %v", buffer, len(got), len(want), err)
		}
	}
}
