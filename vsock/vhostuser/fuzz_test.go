package vhostuser

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fuzzMemory returns guest memory of this process, for a test of rings alone.
func fuzzMemory(t testing.TB, size int) *memory {
	t.Helper()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	half := uint64(size / 2) // two regions that lie side by side for the guest
	return &memory{[]*region{
		{regionAt: regionAt{guest: testGuest, size: half, user: testUser}, data: b[:half:half]},
		{regionAt: regionAt{guest: testGuest + half, size: half, user: testUser + 1<<30}, data: b[half:]},
	}}
}

// FuzzQueue walks a ring of which every byte is the fuzzer's. What comes out
// lies in the memory, and walking ends.
func FuzzQueue(f *testing.F) {
	const size, entries = 1 << 15, 16
	seed := func(event bool, descs ...[]byte) {
		b := make([]byte, 0x400)
		for i, d := range descs {
			copy(b[i*descBytes:], d)
		}
		for i := range entries {
			binary.LittleEndian.PutUint16(b[0x204+2*i:], uint16(i))
		}
		binary.LittleEndian.PutUint16(b[0x202:], entries)
		f.Add(b, event, true)
	}
	desc := func(addr uint64, n uint32, flags, next uint16) []byte {
		b := make([]byte, descBytes)
		putDesc(b, addr, n, flags, next)
		return b
	}
	seed(true, desc(testGuest, 100, descNext, 1), desc(testGuest+size/2-50, 100, descWrite, 0))
	seed(false, desc(testGuest, 64, descIndirect, 0), desc(testGuest, 64, descNext, 2), desc(testGuest, 1, descWrite|descNext, 3), desc(testGuest, 1, 0, 0))
	seed(true, desc(testGuest, 0, descNext, 1), desc(0, 0, descNext, 0))
	f.Fuzz(func(t *testing.T, b []byte, event, indirect bool) {
		mem := fuzzMemory(t, size)
		var features uint64
		if event {
			features |= featEventIdx
		}
		if indirect {
			features |= featIndirect
		}
		copy(mem.regions[0].data, b)
		q, err := newQueue(mem, entries, vringAddr{0, testUser, testUser + 0x300, testUser + 0x200}, 0, features)
		if err != nil {
			t.Fatal(err)
		}
		var c chain
		for range entries + 1 {
			ok, err := q.next(&c)
			if err != nil && !errors.Is(err, errRing) {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			checkInside(t, mem, c.out, c.outBytes)
			checkInside(t, mem, c.in, c.inBytes)
			for _, p := range c.in {
				clear(p)
			}
			q.done(&c, uint32(c.inBytes))
			q.signal()
		}
		q.arm()
	})
}

// checkInside checks that buffers lie in the memory and have n bytes together.
func checkInside(t *testing.T, mem *memory, bufs [][]byte, n uint64) {
	t.Helper()
	for _, b := range bufs {
		n -= uint64(len(b))
		inside := false
		for _, r := range mem.regions {
			end := &r.data[len(r.data)-1]
			inside = inside || &b[:cap(b)][cap(b)-1] == end
		}
		if !inside {
			t.Fatalf("%d bytes outside the memory", len(b))
		}
	}
	if n != 0 {
		t.Fatalf("%d bytes are missing", n)
	}
}

// FuzzStream drives the state machine of one connection with packets and with
// what users do, and holds its promises.
func FuzzStream(f *testing.F) {
	// Operations of the guest: its number, then flags, length, alloc, fwd.
	f.Add([]byte{0x10, 2, 0, 0, 9, 0, 5, 0, 7, 9, 3, 0x11, 3, 0, 0x12, 0x13})
	f.Add([]byte{0x80, 0x10, 5, 0, 200, 9, 0, 4, 3, 0, 0, 0, 3, 0, 0})
	f.Add([]byte{0x10, 2, 0, 0, 0, 0, 0x14, 0x15, 7, 0, 0, 1, 1, 0x13, 0x10})
	f.Fuzz(func(t *testing.T, script []byte) {
		const window = 256
		s := stream{state: stateAsking, due: dueRequest, bufAlloc: window}
		if len(script) > 0 && script[0]&0x80 != 0 {
			s = stream{state: stateOffered, bufAlloc: window}
		}
		buffered, ended, steps := uint32(0), false, 0
		word := func() uint32 {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return uint32(int32(int8(b))) // small, or close to the end of the range
		}
		for len(script) > 0 && steps < 10_000 {
			steps++
			op := script[0]
			script = script[1:]
			was := s.state
			switch op &^ 0x80 {
			case 0x10: // the device sends
				h, n, ok := s.next(40, 30)
				if !ok && n != 0 || n > 30 || ok && h.op == 0 {
					t.Fatalf("next: %+v %d %v", h, n, ok)
				}
				if was == stateDone && ok && h.op != opReset {
					t.Fatalf("packet %+v after the end", h)
				}
				if s.sent-s.peerFwd > s.peerAlloc && n > 0 {
					t.Fatal("sent more than credit")
				}
			case 0x11:
				s.accept()
			case 0x12:
				s.close(shutSend)
			case 0x13:
				s.close(shutBoth)
			case 0x14: // the user reads
				s.take(buffered)
				buffered = 0
			case 0x15:
				s.wants(int(word() & 0xff))
			default:
				h := header{op: uint16(op & 0xf), flags: word(), length: word(), bufAlloc: word(), fwdCnt: word()}
				if s.receive(&h)&eventData != 0 {
					buffered += h.length
				}
			}
			if buffered > window {
				t.Fatalf("%d bytes of %d", buffered, window)
			}
			if ended = ended || s.state == stateDone; ended && s.state != stateDone {
				t.Fatal("back from the end")
			}
			if s.state == stateDone && s.due&^dueReset&^dueCreditRequest != 0 {
				t.Fatalf("due %#x after the end", s.due)
			}
		}
	})
}

// FuzzPackets gives packets from bytes to a whole mux with users, and checks
// that memory and connections stay bounded.
func FuzzPackets(f *testing.F) {
	packet := func(h header, p string) []byte {
		var b [headerBytes]byte
		h.srcCID, h.dstCID, h.typ = 3, hostCID, typeStream
		h.length = uint32(len(p))
		h.put(&b)
		return append(append([]byte{byte(headerBytes + len(p))}, b[:]...), p...)
	}
	f.Add(bytes.Join([][]byte{
		packet(header{op: opRequest, srcPort: 1, dstPort: 9, bufAlloc: 99}, ""),
		packet(header{op: opData, srcPort: 1, dstPort: 9, bufAlloc: 99}, "hello"),
		packet(header{op: opShutdown, srcPort: 1, dstPort: 9, flags: shutBoth}, ""),
	}, nil))
	f.Add(bytes.Join([][]byte{
		packet(header{op: opRequest, srcPort: 1, dstPort: 9, bufAlloc: 99}, ""),
		packet(header{op: opRequest, srcPort: 2, dstPort: 9, bufAlloc: 99}, ""),
		packet(header{op: opRequest, srcPort: 3, dstPort: 9, bufAlloc: 99}, ""),
		packet(header{op: opCreditRequest, srcPort: 2, dstPort: 9}, ""),
		packet(header{op: opReset, srcPort: 2, dstPort: 9}, ""),
	}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &mux{
			cid: 3, limit: 2, bufAlloc: 64, logf: t.Logf,
			conns: map[key]*Conn{}, listeners: map[uint32]*Listener{},
		}
		l, err := m.listen(9, 4)
		if err != nil {
			t.Fatal(err)
		}
		room := make([]byte, 100)
		var held []*Conn
		for len(b) > 0 && len(m.replies) < maxReplies {
			n := min(int(b[0]), len(b)-1)
			p := b[1:][:n]
			b = b[1+n:]
			m.packet(&chain{out: [][]byte{p[:n/2], p[n/2:]}, outBytes: uint64(n)})
			switch n % 3 {
			case 0:
				if m.pruneReady() || len(m.replies) > 0 {
					m.fillPacket(&chain{in: [][]byte{room[:50], room[50:]}, inBytes: 100})
				}
			case 1:
				_ = l.SetDeadline(time.Unix(1, 0))
				select {
				case c := <-l.backlog:
					if n%2 == 0 { // it lives on, and a sink takes some of its bytes
						m.mu.Lock()
						c.sink = func(bufs [][]byte, n int) int {
							took := 0
							for _, b := range front(bufs, n) {
								took += len(b)
							}
							if took != n {
								t.Fatalf("%d bytes of %d are there", took, n)
							}
							return n / 2
						}
						m.mu.Unlock()
						held = append(held, c)
						break
					}
					_ = c.SetDeadline(time.Unix(1, 0))
					_, _ = c.Write(room)
					_ = c.SetReadDeadline(time.Time{})
					m.mu.Lock()
					c.closed = false
					m.mu.Unlock()
					_ = c.Close()
				default:
				}
			}
			if len(m.conns) > 2 || m.live > 2 || m.live < 0 {
				t.Fatalf("%d connections, %d alive, of 2", len(m.conns), m.live)
			}
			for _, c := range m.conns {
				if c.in.n > 64 {
					t.Fatalf("%d bytes of 64", c.in.n)
				}
			}
		}
		m.shut(ErrClosed)
		for len(l.backlog) > 0 {
			held = append(held, <-l.backlog)
		}
		for _, c := range held {
			_ = c.Close()
		}
		if m.live != 0 || len(m.conns) != 0 {
			t.Fatalf("%d connections, %d alive, at the end", len(m.conns), m.live)
		}
	})
}

// FuzzSession gives the device bytes in place of QEMU's.
func FuzzSession(f *testing.F) {
	message := func(req uint32, payload []byte) []byte {
		return append(words32(req, wireVersion|flagNeedAck, uint32(len(payload))), payload...)
	}
	f.Add(bytes.Join([][]byte{
		message(reqGetFeatures, nil), message(reqSetProtocolFeatures, words64(offeredProtocols)), message(reqSetFeatures, words64(offeredFeatures)),
		message(reqGetConfig, append(words32(0, 8, 0), make([]byte, 8)...)), message(reqSetVringNum, words32(0, 128)), message(reqSetVringAddr, ringAddr(0)),
		message(reqGetVringBase, words32(1, 0)),
	}, nil))
	f.Add(bytes.Join([][]byte{message(reqSetMemTable, memTable()), message(reqRemMemReg, memTable()), message(reqSetVringKick, words64(0))}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := unixConn(t, fds[0]), unixConn(t, fds[1])
		var qemu sync.WaitGroup
		defer qemu.Wait()
		qemu.Go(func() {
			_, _ = theirs.Write(b)
			_ = theirs.CloseWrite()
		})
		qemu.Go(func() {
			_, _ = io.Copy(io.Discard, theirs)
			theirs.Close()
		})
		s := session{conn: ours, m: &mux{cid: 3, logf: t.Logf, conns: map[key]*Conn{}}}
		if err := s.run(); err == nil {
			t.Fatal("a session without an end")
		}
	})
}

// FuzzHello parses the first line of a client of the host's socket.
func FuzzHello(f *testing.F) {
	f.Add("CONNECT 5000\n")
	f.Add("CONNECT 1\r\n")
	f.Add("CONNECT -1\n")
	f.Fuzz(func(t *testing.T, line string) {
		port, err := parseHello(line)
		if err == nil && (len(line) < len("CONNECT 1") || line[:8] != "CONNECT ") {
			t.Fatalf("%q is port %d", line, port)
		}
	})
}
