// Package qemutest makes guests for tests: kernels of a few bytes, written in
// machine code, that QEMU boots by PVH in a fraction of a second. They say what
// a test wants to hear on the console and then end as the test wants. It is
// imported by tests only.
package qemutest

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Step is one thing a tiny kernel does, as 32-bit code. at is the address the
// code runs at; text is data that lies right behind it.
type Step struct {
	code func(at uint32) []byte
}

// loadAddress is where the kernel runs, and its entry.
const loadAddress = 0x100000

// Say prints text on the first serial port, count times.
func Say(text string, count int) Step {
	return Step{func(at uint32) []byte {
		const head = 34
		var b bytes.Buffer
		b.WriteByte(0xbf) // mov edi, count
		put32(&b, uint32(count))
		b.WriteByte(0xbe) // again: mov esi, text
		put32(&b, at+head)
		b.WriteByte(0xb9) // mov ecx, len(text)
		put32(&b, uint32(len(text)))
		b.Write([]byte{
			0x66, 0xba, 0xfd, 0x03, // wait: mov dx, 0x3fd (line status)
			0xec,       // in al, dx
			0xa8, 0x20, // test al, 0x20 (transmitter empty)
			0x74, 0xf7, // jz wait
			0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
			0xac, 0xee, // lodsb; out dx, al
			0x49, 0x75, 0xee, // dec ecx; jnz wait
			0x4f, // dec edi
		})
		// The text lies behind two jumps: back while edi, then over the text.
		text := []byte(text)
		b2 := []byte{0x0f, 0x85} // jnz again, near
		rel := int32(5) - int32(b.Len()+6)
		b2 = binary.LittleEndian.AppendUint32(b2, uint32(rel))
		b.Write(b2)
		b.WriteByte(0xe9) // jmp over the text
		put32(&b, uint32(len(text)))
		out := b.Bytes()
		binary.LittleEndian.PutUint32(out[6:], at+uint32(len(out)))
		return append(out, text...)
	}}
}

// Reset resets the machine, as a kernel does that panicked with panic=-1.
func Reset() Step {
	return raw(0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe) // outb(0xcf9, 6); jmp .
}

// PowerOff turns the machine off through ACPI.
func PowerOff() Step {
	return raw(0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe) // outw(0x604, 0x2000); jmp .
}

// Hang halts for ever with interrupts off.
func Hang() Step {
	return raw(0xfa, 0xf4, 0xeb, 0xfd) // cli; hlt; jmp hlt
}

func raw(code ...byte) Step { return Step{func(uint32) []byte { return code }} }

func put32(b *bytes.Buffer, v uint32) {
	b.Write(binary.LittleEndian.AppendUint32(nil, v))
}

// Kernel writes a kernel that does steps, and returns its path.
func Kernel(t testing.TB, steps ...Step) string {
	t.Helper()
	var code []byte
	for _, s := range steps {
		code = append(code, s.code(loadAddress+uint32(len(code)))...)
	}
	code = append(code, 0xfa, 0xf4, 0xeb, 0xfd)
	path := filepath.Join(t.TempDir(), "tiny.elf")
	if err := os.WriteFile(path, elf(code), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// elf wraps code into a 32-bit ELF file with one loaded segment and the note
// that makes it bootable by PVH (XEN_ELFNOTE_PHYS32_ENTRY).
func elf(code []byte) []byte {
	const header, program = 52, 32
	note := binary.LittleEndian.AppendUint32(nil, 4) // length of the name
	note = binary.LittleEndian.AppendUint32(note, 4) // length of the value
	note = binary.LittleEndian.AppendUint32(note, 18)
	note = append(note, "Xen\x00"...)
	note = binary.LittleEndian.AppendUint32(note, loadAddress)

	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, 3) // EM_386
	for _, v := range []uint32{1, loadAddress, header, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{header, program, 2, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	noteAt := uint32(header + 2*program)
	codeAt := noteAt + uint32(len(note))
	segment := func(typ, offset, addr uint32, size int, flags uint32) {
		for _, v := range []uint32{typ, offset, addr, addr, uint32(size), uint32(size), flags, 4} {
			b = le.AppendUint32(b, v)
		}
	}
	segment(1, codeAt, loadAddress, len(code), 7)
	segment(4, noteAt, 0, len(note), 4)
	return append(append(b, note...), code...)
}

// QEMU returns the path of QEMU, or skips the test with the remedy.
func QEMU(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skipf("%v; install qemu-system-x86", err)
	}
	return path
}
