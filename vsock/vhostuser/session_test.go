package vhostuser

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// The device ends, or QEMU does: everybody is told.
func TestEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*Device, *guest)
		want error
	}{
		{"closed", func(d *Device, _ *guest) { d.Close() }, ErrClosed},
		{"QEMU gone", func(_ *Device, g *guest) { g.conn.Close() }, ErrGone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, g := newGuest(t, Options{}, linuxDriver)
			hc, _ := pair(t, d, g, true)
			l, err := d.Listen(0)
			if err != nil {
				t.Fatal(err)
			}
			errs := make(chan error, 2)
			go func() { _, err := hc.Read(make([]byte, 1)); errs <- err }()
			go func() { _, err := l.Accept(); errs <- err }()
			tt.end(d, g)
			for range 2 {
				if err := <-errs; !errors.Is(err, tt.want) {
					t.Error(err)
				}
			}
			<-d.Done()
			if !errors.Is(d.Err(), tt.want) {
				t.Error(d.Err())
			}
			if _, err := d.Dial(testContext(t), 1); !errors.Is(err, tt.want) {
				t.Error(err)
			}
			if _, err := d.Listen(1); !errors.Is(err, tt.want) {
				t.Error(err)
			}
			d.Close()
		})
	}
}

// What a guest wrote before it died, and the device had no time to take, is
// read all the same, and then the end.
func TestLastWords(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	want := noise(50 * 1000)
	g.mu.Lock()
	g.mute = true
	for p := want; len(p) > 0; p = p[1000:] {
		h, n, ok := gc.s.next(1000, 1000)
		if !ok || n != 1000 {
			t.Fatalf("no credit for %d bytes", n)
		}
		gc.put(h, p[:n])
	}
	g.mu.Unlock()
	g.conn.Close()
	got, err := io.ReadAll(hc)
	if !bytes.Equal(got, want) || !errors.Is(err, ErrGone) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// A driver that starts anew knows no connections; one that was paused does.
func TestRestart(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	swapBytes := func() error {
		if _, err := hc.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(gc, make([]byte, 1))
		return err
	}
	if err := swapBytes(); err != nil {
		t.Fatal(err)
	}
	var base [2]uint16
	for i := range uint32(2) {
		b := g.ask(reqGetVringBase, words32(i, 0))
		base[i] = uint16(b[4]) | uint16(b[5])<<8
	}
	if base[0] == 0 || base[1] == 0 {
		t.Errorf("stopped at %v", base)
	}
	paused := make(chan error, 1)
	go func() { paused <- swapBytes() }()
	g.start(linuxDriver.features, base)
	if err := <-paused; err != nil {
		t.Fatalf("after a pause: %v", err)
	}

	for i := range uint32(2) {
		g.ask(reqGetVringBase, words32(i, 0))
	}
	g.halt()
	g.boot()
	if _, err := hc.Read(make([]byte, 1)); !errors.Is(err, ErrRestarted) {
		t.Errorf("after a restart: %v", err)
	}
	hc, gc = pair(t, d, g, true)
	if err := swapBytes(); err != nil {
		t.Error(err)
	}
	hc.Close()
	gc.Close()
}

// New guest memory while rings run, as when memory is plugged in.
func TestMemoryChange(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		swapBytes(t, hc, gc, noise(4<<20), 1<<16)
	}()
	other := append(words32(0, 0), words64(testGuest+testMemory, 1<<20, testUser+testMemory, 0)...)
	for range 10 {
		for _, step := range []struct {
			req     uint32
			payload []byte
			fds     []int
		}{
			{reqSetMemTable, memTable(), []int{g.memFD}},
			{reqAddMemReg, other, []int{g.memFD}},
			{reqRemMemReg, other, nil},
		} {
			if !g.ack(step.req, step.payload, step.fds...) {
				t.Errorf("request %d refused", step.req)
			}
		}
	}
	<-done
}
