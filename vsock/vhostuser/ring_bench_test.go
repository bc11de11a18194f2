package vhostuser

import (
	"io"
	"net"
	"path/filepath"
	"testing"
)

// The device without QEMU: what it adds to what a guest needs.

func BenchmarkRoundTrip(b *testing.B) {
	d, g := newGuest(b, Options{}, linuxDriver)
	hc, gc := pair(b, d, g, true)
	go func() { _, _ = io.Copy(hc, hc) }()
	one := []byte{1}
	for b.Loop() {
		_, _ = gc.Write(one)
		if _, err := io.ReadFull(gc, one); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHostRoundTrip has the echo behind a Unix socket.
func BenchmarkHostRoundTrip(b *testing.B) {
	path := filepath.Join(b.TempDir(), "v")
	_, g := newGuest(b, Options{HostPath: path}, linuxDriver)
	l, err := net.Listen("unix", path+"_1234")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	gc, err := g.dial(50, 1234)
	if err != nil {
		b.Fatal(err)
	}
	u, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer u.Close()
	go func() { _, _ = io.Copy(u, struct{ io.Reader }{u}) }()
	one := []byte{1}
	for b.Loop() {
		_, _ = gc.Write(one)
		if _, err := io.ReadFull(gc, one); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFromGuest(b *testing.B) {
	d, g := newGuest(b, Options{}, linuxDriver)
	hc, gc := pair(b, d, g, true)
	benchmarkBulk(b, gc, hc)
}

func BenchmarkToGuest(b *testing.B) {
	d, g := newGuest(b, Options{}, linuxDriver)
	hc, gc := pair(b, d, g, true)
	benchmarkBulk(b, hc, gc)
}

func benchmarkBulk(b *testing.B, w io.Writer, r io.Reader) {
	b.Helper()
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	}()
	block := make([]byte, 1<<20)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := w.Write(block); err != nil {
			b.Fatal(err)
		}
	}
}
