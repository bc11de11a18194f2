package vhostuser

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The guest of the tests: QEMU's end of the vhost-user protocol and a driver of
// the device, in this process, over memory and eventfds as QEMU has them.

const (
	testMemory = 16 << 20
	testGuest  = 0x1000_0000      // guest physical address of the memory
	testUser   = 0x7f00_0000_0000 // QEMU's address of it
	testRing   = 128
	rxBuffer   = 4096
	txBuffer   = headerBytes + 64<<10
	ringArea   = 0x8000
	indirectAt = 0x20000 // tables of indirect descriptors, one per tx slot
	rxAt       = 0x100000
	txAt       = 0x400000
)

// driverOptions vary what drivers do differently.
type driverOptions struct {
	features uint64
	twoDescs bool // rx buffers have the header apart, as Linux 6.1 has them
	noRX     bool // the guest gives no buffers
}

var linuxDriver = driverOptions{features: featVersion1 | featIndirect | featEventIdx | featProtocol}

// frontEnd is QEMU's end.
type frontEnd struct {
	t     testing.TB
	conn  *net.UnixConn
	memFD int
	mem   []byte
	kick  [2]*os.File
	call  [2]*os.File
}

// newDevice returns a device and QEMU's end of its connection.
func newDevice(t testing.TB, o Options) (*Device, *frontEnd) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := unixConn(t, fds[0]), unixConn(t, fds[1])
	if o.Socket == "" {
		o.Conn = ours
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if o.Socket != "" {
		ours.Close()
		theirs.Close()
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: o.Socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		theirs = c
	}
	f := &frontEnd{t: t, conn: theirs}
	if f.memFD, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(f.memFD, testMemory); err != nil {
		t.Fatal(err)
	}
	if f.mem, err = unix.Mmap(f.memFD, 0, testMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	for i := range f.kick {
		f.kick[i], f.call[i] = eventfd(t), eventfd(t)
	}
	t.Cleanup(f.close)
	return d, f
}

func unixConn(t testing.TB, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func eventfd(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "eventfd")
}

func (f *frontEnd) close() {
	f.conn.Close()
	for i := range f.kick {
		f.kick[i].Close()
		f.call[i].Close()
	}
	if f.mem != nil {
		_ = unix.Munmap(f.mem)
		unix.Close(f.memFD)
		f.mem = nil
	}
}

// send sends a request with descriptors.
func (f *frontEnd) send(req, flags uint32, payload []byte, fds ...int) error {
	b := binary.LittleEndian.AppendUint32(nil, req)
	b = binary.LittleEndian.AppendUint32(b, wireVersion|flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := f.conn.WriteMsgUnix(append(b, payload...), oob, nil)
	return err
}

// reply reads the answer to req.
func (f *frontEnd) reply(req uint32) ([]byte, error) {
	_ = f.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var head [wireHeader]byte
	if _, err := io.ReadFull(f.conn, head[:]); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if got := le.Uint32(head[:]); got != req || le.Uint32(head[4:]) != wireVersion|flagReply {
		f.t.Errorf("reply to %d with flags %#x, want %d", got, le.Uint32(head[4:]), req)
	}
	b := make([]byte, le.Uint32(head[8:]))
	_, err := io.ReadFull(f.conn, b)
	return b, err
}

// ask sends a request and returns its reply.
func (f *frontEnd) ask(req uint32, payload []byte, fds ...int) []byte {
	f.t.Helper()
	if err := f.send(req, 0, payload, fds...); err != nil {
		f.t.Fatal(err)
	}
	b, err := f.reply(req)
	if err != nil {
		f.t.Fatalf("reply to request %d: %v", req, err)
	}
	return b
}

// ack sends a request that needs an acknowledgement and tells whether the
// device agreed.
func (f *frontEnd) ack(req uint32, payload []byte, fds ...int) bool {
	f.t.Helper()
	if err := f.send(req, flagNeedAck, payload, fds...); err != nil {
		f.t.Fatal(err)
	}
	b, err := f.reply(req)
	if err != nil {
		f.t.Fatalf("acknowledgement of request %d: %v", req, err)
	}
	return binary.LittleEndian.Uint64(b) == 0
}

func words32(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func words64(v ...uint64) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func memTable() []byte {
	return append(words32(1, 0), words64(testGuest, testMemory, testUser, 0)...)
}

func ringAddr(i uint32) []byte {
	at := testUser + uint64(i)*ringArea
	return append(words32(i, 0), words64(at, at+0x4000, at+0x2000, 0)...)
}

// handshake does what QEMU does when the device is made.
func (f *frontEnd) handshake() {
	f.t.Helper()
	le := binary.LittleEndian
	if got := le.Uint64(f.ask(reqGetFeatures, nil)); got != offeredFeatures {
		f.t.Fatalf("features %#x", got)
	}
	if got := le.Uint64(f.ask(reqGetProtocolFeatures, nil)); got != offeredProtocols {
		f.t.Fatalf("protocol features %#x", got)
	}
	if err := f.send(reqSetProtocolFeatures, 0, words64(offeredProtocols)); err != nil {
		f.t.Fatal(err)
	}
	f.ask(reqGetQueueNum, nil)
	if !f.ack(reqSetOwner, nil) {
		f.t.Fatal("owner refused")
	}
	if got := f.ask(reqGetConfig, append(words32(0, 8, 0), make([]byte, 8)...)); le.Uint64(got[12:]) != 3 {
		f.t.Fatalf("config % x", got)
	}
}

// start does what QEMU does when the driver starts the device.
func (f *frontEnd) start(features uint64, base [2]uint16) {
	f.t.Helper()
	must := func(req uint32, payload []byte, fds ...int) {
		f.t.Helper()
		if !f.ack(req, payload, fds...) {
			f.t.Fatalf("request %d refused", req)
		}
	}
	must(reqSetFeatures, words64(features))
	must(reqSetMemTable, memTable(), f.memFD)
	for i := range uint32(2) {
		must(reqSetVringNum, words32(i, testRing))
		must(reqSetVringBase, words32(i, uint32(base[i])))
		must(reqSetVringAddr, ringAddr(i))
		must(reqSetVringKick, words64(uint64(i)), int(f.kick[i].Fd()))
		must(reqSetVringCall, words64(uint64(i)), int(f.call[i].Fd()))
		// Fd makes the description block; the guest waits with the poller.
		_ = unix.SetNonblock(int(f.call[i].Fd()), true)
	}
	for i := range uint32(2) {
		must(reqSetVringEnable, words32(i, 1))
	}
}

// ring is a driver's end of a split virtqueue.
type ring struct {
	f          *frontEnd
	i          int
	at         int // offset in the memory
	eventIdx   bool
	avail      uint16
	lastUsed   uint16
	lastKicked uint16
}

func (f *frontEnd) ring(i int, features uint64) *ring {
	clear(f.mem[i*ringArea:][:ringArea])
	return &ring{f: f, i: i, at: i * ringArea, eventIdx: features&featEventIdx != 0}
}

func (r *ring) setDesc(i int, addr uint64, length uint32, flags, next uint16) {
	putDesc(r.f.mem[r.at+i*descBytes:], addr, length, flags, next)
}

func putDesc(b []byte, addr uint64, length uint32, flags, next uint16) {
	le := binary.LittleEndian
	le.PutUint64(b, addr)
	le.PutUint32(b[8:], length)
	le.PutUint16(b[12:], flags)
	le.PutUint16(b[14:], next)
}

func (r *ring) availWord(off int) word { return wordAt(r.f.mem, r.at+0x2000+off) }
func (r *ring) usedWord(off int) word  { return wordAt(r.f.mem, r.at+0x4000+off) }

// add makes a chain available.
func (r *ring) add(head uint16) {
	store(r.availWord(4+2*int(r.avail%testRing)), head)
	r.avail++
	store(r.availWord(2), r.avail)
}

// notify tells the device, if it wants to know.
func (r *ring) notify() {
	fence()
	old := r.lastKicked
	r.lastKicked = r.avail
	if r.eventIdx {
		if event := load(r.usedWord(4 + 8*testRing)); r.avail-event-1 >= r.avail-old {
			return
		}
	} else if load(r.usedWord(0))&usedNoNotify != 0 {
		return
	}
	notify(r.f.kick[r.i])
}

// pop takes a chain that the device gave back.
func (r *ring) pop() (head uint16, n int, ok bool) {
	if load(r.usedWord(2)) == r.lastUsed {
		return 0, 0, false
	}
	e := r.f.mem[r.at+0x4000+4+8*int(r.lastUsed%testRing):]
	r.lastUsed++
	return uint16(binary.LittleEndian.Uint32(e)), int(binary.LittleEndian.Uint32(e[4:])), true
}

// wait waits for an interrupt, unless there is something already.
func (r *ring) wait() error {
	if r.eventIdx {
		store(r.availWord(4+2*testRing), r.lastUsed)
	}
	fence()
	if load(r.usedWord(2)) != r.lastUsed {
		return nil
	}
	var b [8]byte
	_, err := r.f.call[r.i].Read(b[:])
	return err
}

// notify adds one to an eventfd.
func notify(f *os.File) { _, _ = f.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) }
