package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// badRings are what a guest may do to its rings. Each breaks the device.
var badRings = []struct {
	name string
	do   func(r *ring)
	want string
}{
	{"available jumps", func(r *ring) { r.avail += testRing + 1; store(r.availWord(2), r.avail) }, "entries available"},
	{"available goes back", func(r *ring) { store(r.availWord(2), r.avail-1) }, "entries available"},
	{"head outside the ring", func(r *ring) { r.add(testRing) }, "descriptor 128 in a ring"},
	{"circle", func(r *ring) {
		r.setDesc(100, testGuest, 0, descNext, 101)
		r.setDesc(101, testGuest, 8, descNext, 100)
		r.add(100)
	}, "goes in a circle"},
	{"next outside the ring", func(r *ring) { r.setDesc(100, testGuest, 8, descNext, testRing); r.add(100) }, "leaves its table"},
	{"below the memory", func(r *ring) { r.setDesc(100, 0, 8, 0, 0); r.add(100) }, "outside the guest's memory"},
	{"beyond the memory", func(r *ring) { r.setDesc(100, testGuest+testMemory-4, 8, 0, 0); r.add(100) }, "outside the guest's memory"},
	{"end of the address space", func(r *ring) { r.setDesc(100, ^uint64(0)-3, 8, 0, 0); r.add(100) }, "outside the guest's memory"},
	{"4 GiB", func(r *ring) { r.setDesc(100, testGuest, ^uint32(0), 0, 0); r.add(100) }, "outside the guest's memory"},
	{"readable behind writable", func(r *ring) {
		r.setDesc(100, testGuest, 8, descNext|descWrite, 101)
		r.setDesc(101, testGuest, 8, 0, 0)
		r.add(100)
	}, "readable memory behind writable"},
	{"indirect, odd", func(r *ring) { r.setDesc(100, testGuest, 17, descIndirect, 0); r.add(100) }, "indirect table of 17"},
	{"indirect, empty", func(r *ring) { r.setDesc(100, testGuest, 0, descIndirect, 0); r.add(100) }, "indirect table of 0"},
	{"indirect, huge", func(r *ring) { r.setDesc(100, testGuest, 0xffff_fff0, descIndirect, 0); r.add(100) }, "indirect table of"},
	{"indirect, outside", func(r *ring) { r.setDesc(100, testGuest+testMemory-16, 32, descIndirect, 0); r.add(100) }, "outside the guest's memory"},
	{"indirect, goes on", func(r *ring) { r.setDesc(100, testGuest, 16, descIndirect|descNext, 0); r.add(100) }, "goes on behind"},
	{"indirect in indirect", func(r *ring) {
		putDesc(r.f.mem[indirectAt:], testGuest+indirectAt, 16, descIndirect, 0)
		r.setDesc(100, testGuest+indirectAt, 16, descIndirect, 0)
		r.add(100)
	}, "where none may be"},
	{"indirect circle", func(r *ring) {
		putDesc(r.f.mem[indirectAt:], testGuest, 8, descNext, 0)
		r.setDesc(100, testGuest+indirectAt, 32, descIndirect, 0)
		r.add(100)
	}, "goes in a circle"},
	{"indirect behind a long chain", func(r *ring) {
		for i := range maxChain {
			putDesc(r.f.mem[indirectAt+i*descBytes:], testGuest, 8, descNext, uint16(i+1))
		}
		r.setDesc(100, testGuest, 8, descNext, 101)
		r.setDesc(101, testGuest+indirectAt, maxChain*descBytes, descIndirect, 0)
		r.add(100)
	}, "more than 1024 descriptors"},
}

func TestBadRings(t *testing.T) {
	for _, tt := range badRings {
		t.Run(tt.name, func(t *testing.T) {
			d, g := newGuest(t, Options{}, linuxDriver)
			errfd := eventfd(t)
			defer errfd.Close()
			if !g.ack(reqSetVringErr, words64(txQueue), int(errfd.Fd())) {
				t.Fatal("no error descriptor")
			}
			_ = unix.SetNonblock(int(errfd.Fd()), true)
			hc, _ := pair(t, d, g, true)
			g.mu.Lock()
			tt.do(g.tx)
			notify(g.kick[txQueue])
			g.mu.Unlock()
			_, err := hc.Read(make([]byte, 1))
			if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if _, err := errfd.Read(make([]byte, 8)); err != nil {
				t.Error(err)
			}
			if err := d.Err(); err != nil {
				t.Errorf("the device ended: %v", err)
			}
			// A driver that starts anew has a device.
			for i := range uint32(2) {
				g.ask(reqGetVringBase, words32(i, 0))
			}
			g.halt()
			g.boot()
			hc, gc := pair(t, d, g, true)
			swapBytes(t, hc, gc, noise(100_000), 10_000)
		})
	}
}

// A ring that the guest put where none can be.
func TestBadRingAddress(t *testing.T) {
	for _, tt := range []struct {
		name string
		size uint32
		addr []byte
	}{
		{"size", 127, ringAddr(txQueue)},
		{"no size", 0, ringAddr(txQueue)},
		{"huge", 32768, ringAddr(txQueue)},
		{"outside", 128, append(words32(txQueue, 0), words64(testUser-1, testUser, testUser, 0)...)},
		{"beyond", 128, append(words32(txQueue, 0), words64(testUser, testUser+testMemory-100, testUser, 0)...)},
		{"odd", 128, append(words32(txQueue, 0), words64(testUser, testUser+0x4001, testUser+0x2001, 0)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, f := newDevice(t, Options{})
			f.handshake()
			f.ack(reqSetFeatures, words64(linuxDriver.features))
			f.ack(reqSetMemTable, memTable(), f.memFD)
			f.ack(reqSetVringNum, words32(txQueue, tt.size))
			f.ack(reqSetVringAddr, tt.addr)
			f.ack(reqSetVringEnable, words32(txQueue, 1))
			f.ack(reqSetVringKick, words64(txQueue), int(f.kick[0].Fd()))
			d.m.mu.Lock()
			defer d.m.mu.Unlock()
			if !d.m.halted || d.m.tx != nil {
				t.Error("the ring is in use")
			}
		})
	}
}

// rawGuest is a guest that speaks packets and has no sockets.
func rawGuest(t *testing.T, o Options) (*Device, *guest, func(h header, p []byte), func() header) {
	t.Helper()
	d, g := newGuest(t, o, linuxDriver)
	g.halt()
	g.down = false
	send := func(h header, p []byte) {
		t.Helper()
		g.mu.Lock()
		defer g.mu.Unlock()
		if head, _, ok := g.tx.pop(); ok {
			g.txFree = append(g.txFree, head)
		}
		if h.srcCID == 0 {
			h.srcCID = 3
		}
		if h.dstCID == 0 {
			h.dstCID = hostCID
		}
		if h.typ == 0 {
			h.typ = typeStream
		}
		g.transmit(h, p)
	}
	receive := func() header {
		t.Helper()
		_ = g.call[rxQueue].SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			if head, _, ok := g.rx.pop(); ok {
				h := parsePacket((*[headerBytes]byte)(g.mem[rxAt+int(head)*rxBuffer:]))
				g.postRX(head)
				g.rx.notify()
				return h
			}
			if err := g.rx.wait(); err != nil {
				t.Fatal("no packet:", err)
			}
		}
	}
	return d, g, send, receive
}

// Packets that are wrong end their connection and no other.
func TestBadPackets(t *testing.T) {
	d, g, send, receive := rawGuest(t, Options{Buffer: 64 << 10})
	l, err := d.Listen(9)
	if err != nil {
		t.Fatal(err)
	}
	open := func(port uint32) *Conn {
		t.Helper()
		send(header{op: opRequest, srcPort: port, dstPort: 9, bufAlloc: 1 << 20}, nil)
		if h := receive(); h.op != opResponse {
			t.Fatalf("%+v", h)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(*Conn)
	}
	other := open(1)
	data := make([]byte, 64<<10)
	for i, tt := range []struct {
		name    string
		packets []header
		sizes   []int
	}{
		{"more than credit", []header{{op: opData}, {op: opData}}, []int{64 << 10, 1}},
		{"request again", []header{{op: opRequest}}, []int{0}},
		{"response", []header{{op: opResponse}}, []int{0}},
		{"operation 0", []header{{op: 0}}, []int{0}},
		{"operation 8", []header{{op: 8}}, []int{0}},
		{"bytes in a credit update", []header{{op: opCreditUpdate}}, []int{9}},
		{"bytes in a shutdown", []header{{op: opShutdown, flags: shutBoth}}, []int{9}},
		{"data after the end", []header{{op: opShutdown, flags: shutSend}, {op: opData}}, []int{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := uint32(100 + i)
			c := open(port)
			defer c.Close()
			for k, h := range tt.packets {
				h.srcPort, h.dstPort = port, 9
				send(h, data[:tt.sizes[k]])
			}
			if h := receive(); h.op != opReset || h.dstPort != port {
				t.Errorf("%+v", h)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, errViolation) {
				t.Error(err)
			}
		})
	}
	t.Run("longer than its buffer", func(t *testing.T) {
		c := open(200)
		defer c.Close()
		g.mu.Lock()
		h := header{srcCID: 3, dstCID: 2, srcPort: 200, dstPort: 9, length: 100, typ: typeStream, op: opData}
		h.put((*[headerBytes]byte)(g.mem[txAt:]))
		g.tx.setDesc(100, testGuest+txAt, headerBytes+99, 0, 0)
		g.tx.add(100)
		g.tx.notify()
		g.mu.Unlock()
		if h := receive(); h.op != opReset {
			t.Errorf("%+v", h)
		}
	})
	for _, h := range []header{
		{op: opData, srcPort: 5, dstPort: 9},                           // no such connection
		{op: opRequest, srcPort: 5, dstPort: 10},                       // no listener
		{op: opRequest, srcPort: 5, dstPort: 9, typ: 2},                // no such type
		{op: opRequest, srcPort: 5, dstPort: 9, dstCID: 77},            // no such machine
		{op: opRequest, srcPort: 5, dstPort: 9, dstCID: 1<<32 | 2},     // nor this
		{op: opShutdown, srcPort: 5, dstPort: 9, flags: ^uint32(0)},    // no such connection
		{op: opCreditRequest, srcPort: 1, dstPort: 9, dstCID: 1 << 63}, // another machine's
	} {
		send(h, nil)
		if got := receive(); got.op != opReset || got.dstPort != h.srcPort || got.srcPort != h.dstPort || got.dstCID != 3 {
			t.Errorf("%+v: %+v", h, got)
		}
	}
	// In another's name, and resets of nothing: no answer.
	dropped := d.Stats().Dropped
	send(header{op: opRequest, srcCID: 4, srcPort: 5, dstPort: 9}, nil)
	send(header{op: opReset, srcPort: 5, dstPort: 9}, nil)
	g.mu.Lock()
	g.tx.setDesc(100, testGuest+txAt, headerBytes-1, 0, 0)
	g.tx.add(100)
	g.tx.notify()
	g.mu.Unlock()

	send(header{op: opCreditRequest, srcPort: 1, dstPort: 9, bufAlloc: 1 << 20}, nil)
	if h := receive(); h.op != opCreditUpdate || h.dstPort != 1 || h.bufAlloc != 64<<10 {
		t.Errorf("%+v", h)
	}
	if got := d.Stats().Dropped - dropped; got != 2 {
		t.Errorf("%d packets dropped, want 2", got)
	}
	send(header{op: opData, srcPort: 1, dstPort: 9, bufAlloc: 1 << 20}, []byte("alive"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(other, b); err != nil || string(b) != "alive" {
		t.Errorf("%q %v", b, err)
	}
	l.Close()
	other.Close()
}

// A guest that lies about its credit gets no more than a window, or nothing.
func TestCreditLies(t *testing.T) {
	for _, tt := range []struct {
		alloc, fwd uint32
		want       int
	}{
		{0, 0, 0}, {10, 0, 10}, {10, 1, 0}, {10, 1 << 31, 0}, {^uint32(0), 5, 4}, {100, ^uint32(0), 99},
	} {
		s := stream{state: stateOpen, bufAlloc: 4096}
		s.receive(&header{op: opCreditUpdate, bufAlloc: tt.alloc, fwdCnt: tt.fwd})
		_, n, _ := s.next(4096, 4096)
		if n != tt.want {
			t.Errorf("%d-%d: %d bytes, want %d", tt.alloc, tt.fwd, n, tt.want)
		}
	}
}

// A guest that asks and never takes the answers is not answered without limit,
// and goes on when it does take them.
func TestReplyFlood(t *testing.T) {
	opts := linuxDriver
	opts.noRX = true
	d, g := newGuest(t, Options{}, opts)
	g.halt()
	g.down = false
	const flood = 1000
	sent := 0
	for end := time.Now().Add(5 * time.Second); sent < flood && time.Now().Before(end); {
		if len(g.txFree) > 0 {
			g.transmit(header{srcCID: 3, dstCID: 2, srcPort: uint32(sent), typ: typeStream, op: opRequest}, nil)
			sent++
		}
		if head, _, ok := g.tx.pop(); ok {
			g.txFree = append(g.txFree, head)
		} else if len(g.txFree) == 0 {
			break // it does not take more
		}
	}
	d.m.mu.Lock()
	if n := len(d.m.replies); n > maxReplies || sent >= flood {
		t.Errorf("%d replies wait, %d packets taken", n, sent)
	}
	d.m.mu.Unlock()
	for i := range 64 {
		g.postRX(uint16(2 * i))
	}
	g.rx.notify()
	g.opts.noRX = false
	for got := 0; got < sent; {
		if head, _, ok := g.rx.pop(); ok {
			g.postRX(head)
			g.rx.notify()
			got++
			continue
		}
		_ = g.call[rxQueue].SetReadDeadline(time.Now().Add(10 * time.Second))
		if err := g.rx.wait(); err != nil {
			t.Fatalf("%d answers of %d: %v", got, sent, err)
		}
	}
}

// Buffers without room for a packet are given back, and no more.
func TestTinyBuffers(t *testing.T) {
	opts := linuxDriver
	opts.noRX = true
	_, g := newGuest(t, Options{}, opts)
	g.halt() // the ring is the test's
	for i := range uint16(20) {
		g.rx.setDesc(int(i), testGuest+rxAt, headerBytes-1, descWrite, 0)
		g.rx.add(i)
	}
	g.rx.setDesc(20, testGuest+rxAt, headerBytes, 0, 0) // readable only
	g.rx.add(20)
	g.postRX(22)
	g.rx.notify()
	g.down = false
	g.running.Go(g.receive)
	g.running.Go(g.reclaim)
	if _, err := g.dial(5, 5); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

// The memory shrinks under the rings: an error, not a crash.
func TestMemoryShrinks(t *testing.T) {
	d, g := newGuest(t, Options{}, linuxDriver)
	hc, gc := pair(t, d, g, true)
	if _, err := hc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(gc, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	g.halt() // touches the memory too
	if err := unix.Ftruncate(g.memFD, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := hc.Write([]byte("x")); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
	if g.ack(reqSetMemTable, memTable(), g.memFD) {
		t.Error("memory beyond the end of its file is taken")
	}
}

// The same with a connection that goes to a Unix socket, of bytes that were there
// when the guest said so: the kernel, which reads them for us, says so too.
func TestPayloadShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	var logged strings.Builder
	d, g, send, receive := rawGuest(t, Options{HostPath: path, Logf: func(f string, a ...any) { fmt.Fprintf(&logged, f, a...) }})
	l, err := net.Listen("unix", path+"_9")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	more, err := unix.MemfdCreate("more", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(more)
	if err := unix.Ftruncate(more, 1<<20); err != nil {
		t.Fatal(err)
	}
	at := uint64(testGuest + testMemory)
	if !g.ack(reqAddMemReg, append(words32(0, 0), words64(at, 1<<20, testUser+testMemory, 0)...), more) {
		t.Fatal("no more memory")
	}
	send(header{op: opRequest, srcPort: 5, dstPort: 9, bufAlloc: 1 << 20}, nil)
	if h := receive(); h.op != opResponse {
		t.Fatalf("%+v", h)
	}
	u, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	for _, size := range []int64{1 << 20, 0} {
		if err := unix.Ftruncate(more, size); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		h := header{srcCID: 3, dstCID: 2, srcPort: 5, dstPort: 9, length: 5000, typ: typeStream, op: opData, bufAlloc: 1 << 20}
		h.put((*[headerBytes]byte)(g.mem[txAt:]))
		g.tx.setDesc(100, testGuest+txAt, headerBytes, descNext, 101)
		g.tx.setDesc(101, at, 5000, 0, 0)
		g.tx.add(100)
		g.tx.notify()
		g.mu.Unlock()
		n, err := io.ReadFull(u, make([]byte, 5000))
		if size > 0 && err != nil || size == 0 && (n > 0 || err == nil) {
			t.Errorf("%d bytes with memory of %d: %v", n, size, err)
		}
	}
	d.Close()
	if !strings.Contains(logged.String(), "fault at") {
		t.Errorf("the device says %q", logged.String())
	}
}

// What QEMU must not send. Each is refused and the session lives on.
func TestRefusedRequests(t *testing.T) {
	d, f := newDevice(t, Options{})
	f.handshake()
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	region := func(guest, size, user, offset uint64) []byte {
		return append(words32(0, 0), words64(guest, size, user, offset)...)
	}
	two := append(words32(2, 0), words64(0, 4096, 0, 0, 4095, 4096, 1<<20, 4096)...)
	for _, tt := range []struct {
		name    string
		req     uint32
		payload []byte
		fds     []int
	}{
		{"unknown", 999, nil, nil},
		{"log base", 6, words64(0, 0), nil},
		{"set config", reqSetConfig, make([]byte, 20), nil},
		{"short features", reqSetFeatures, words32(0), nil},
		{"features not offered", reqSetFeatures, words64(1 << 34), nil},
		{"protocol features not offered", reqSetProtocolFeatures, words64(1 << 5), nil},
		{"ring 3", reqSetVringNum, words32(3, 1), nil},
		{"address of ring 3", reqSetVringAddr, ringAddr(3), nil},
		{"short address", reqSetVringAddr, words64(0), nil},
		{"logging ring", reqSetVringAddr, append(words32(0, 1), words64(0, 0, 0, 0)...), nil},
		{"kick without descriptor", reqSetVringKick, words64(0), nil},
		{"polled kick", reqSetVringKick, words64(vringNoFD), nil},
		{"kick of ring 9", reqSetVringKick, words64(9), []int{pipe[0]}},
		{"two descriptors", reqSetVringCall, words64(0), []int{pipe[0], pipe[1]}},
		{"empty memory table", reqSetMemTable, nil, nil},
		{"memory without descriptor", reqSetMemTable, memTable(), nil},
		{"cut memory table", reqSetMemTable, memTable()[:30], []int{f.memFD}},
		{"nine regions", reqSetMemTable, append(words32(9, 0), make([]byte, 9*32)...), nil},
		{"memory in a pipe", reqSetMemTable, memTable(), []int{pipe[0]}},
		{"overlap", reqSetMemTable, two, []int{f.memFD, f.memFD}},
		{"empty region", reqAddMemReg, region(0, 0, 0, 0), []int{f.memFD}},
		{"beyond the file", reqAddMemReg, region(0, testMemory, 0, 1), []int{f.memFD}},
		{"wraps", reqAddMemReg, region(^uint64(0)-10, 4096, 0, 0), []int{f.memFD}},
		{"huge", reqAddMemReg, region(0, 1<<60, 0, 0), []int{f.memFD}},
		{"huge offset", reqAddMemReg, region(0, 4096, 0, ^uint64(0)), []int{f.memFD}},
		{"region without descriptor", reqAddMemReg, region(0, 4096, 0, 0), nil},
		{"remove what is not there", reqRemMemReg, region(0, 4096, 0, 0), nil},
	} {
		if f.ack(tt.req, tt.payload, tt.fds...) {
			t.Errorf("%s: taken", tt.name)
		}
	}
	for _, ask := range [][]byte{nil, words32(0, 9, 0), append(words32(2000, 1, 0), 0), words32(^uint32(0), ^uint32(0), 0)} {
		if got := f.ask(reqGetConfig, ask); len(got) != 0 {
			t.Errorf("config %v: %v", ask, got)
		}
	}
	if got := f.ask(reqGetConfig, append(words32(4, 8, 0), make([]byte, 8)...)); len(got) != 20 || binary.LittleEndian.Uint64(got[12:]) != 0 {
		t.Errorf("config at 4: %v", got)
	}
	if !f.ack(reqSetStatus, words64(7)) || f.ask(reqGetStatus, nil)[0] != 7 {
		t.Error("status is not kept")
	}
	if !f.ack(reqResetDevice, nil) || f.ask(reqGetStatus, nil)[0] != 0 {
		t.Error("reset does not reset")
	}
	if err := d.Err(); err != nil {
		t.Error(err)
	}
}

// Breaches of the protocol's form end the session, and nothing else.
func TestBrokenSession(t *testing.T) {
	for name, b := range map[string][]byte{
		"version":                   words32(reqGetFeatures, 2, 0),
		"a reply":                   words32(reqGetFeatures, wireVersion|flagReply, 0),
		"too long":                  words32(reqGetFeatures, wireVersion, maxPayload+1),
		"without acknowledgement":   append(words32(reqSetVringNum, wireVersion, 8), words32(9, 9)...),
		"ends inside":               words32(reqSetVringNum, wireVersion, 8),
		"ends inside the header":    words32(reqSetVringNum),
		"base of a ring that's not": append(words32(reqGetVringBase, wireVersion, 8), words32(9, 9)...),
	} {
		d, f := newDevice(t, Options{})
		if _, err := f.conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "ends") {
			f.conn.Close()
		}
		select {
		case <-d.Done():
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the session goes on", name)
		}
		if !errors.Is(d.Err(), ErrGone) {
			t.Errorf("%s: %v", name, d.Err())
		}
	}
	// More descriptors than a message may have.
	d, f := newDevice(t, Options{})
	if err := f.send(reqSetOwner, 0, nil, make([]int, 20)...); err != nil {
		t.Fatal(err)
	}
	<-d.Done()
	if !errors.Is(d.Err(), errWire) {
		t.Error(d.Err())
	}
}
