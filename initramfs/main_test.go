package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/guestinit/guestinit/internal/guesttest"
)

// TestMain fails the package when its tests leave file descriptors open.
func TestMain(m *testing.M) {
	os.Exit(guesttest.CloseFiles(m))
}

func writeFile(t testing.TB, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// section is one section of a made-up ELF file.
type section struct {
	name string
	kind elf.SectionType
	link uint32
	data []byte
}

// makeELF builds an x86-64 ELF file of sections; an interpreter, if any, gets
// a program header.
func makeELF(kind elf.Type, interp string, sections ...section) []byte {
	names := []byte{0}
	body := []byte{}
	const headers = 64 + 56
	heads := make([]elf.Section64, 1, len(sections)+2)
	sections = append(sections, section{name: ".shstrtab", kind: elf.SHT_STRTAB})
	for _, s := range sections {
		at := uint32(len(names))
		names = append(append(names, s.name...), 0)
		if s.name == ".shstrtab" {
			s.data = names
		}
		heads = append(heads, elf.Section64{
			Name: at, Type: uint32(s.kind), Link: s.link, Addralign: 1,
			Off: headers + uint64(len(body)), Size: uint64(len(s.data)),
		})
		body = append(body, s.data...)
	}
	prog := elf.Prog64{Type: uint32(elf.PT_NULL)}
	if interp != "" {
		prog = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: headers + uint64(len(body)), Filesz: uint64(len(interp) + 1)}
		body = append(append(body, interp...), 0)
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(kind), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Shoff: headers + uint64(len(body)), Ehsize: 64, Phentsize: 56, Phnum: 1,
		Shentsize: 64, Shnum: uint16(len(heads)), Shstrndx: uint16(len(heads) - 1),
	}
	var b bytes.Buffer
	for _, v := range []any{h, prog, body, heads} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// makeModule builds a kernel module that only has a .modinfo.
func makeModule(info ...string) []byte {
	var data []byte
	for _, s := range info {
		data = append(append(data, s...), 0)
	}
	return makeELF(elf.ET_REL, "", section{name: ".modinfo", kind: elf.SHT_PROGBITS, data: data})
}

// makeDynamic builds a program or library with DT_NEEDED and DT_RUNPATH.
func makeDynamic(interp, runpath string, needed ...string) []byte {
	text := []byte{0}
	var dyn bytes.Buffer
	entry := func(tag elf.DynTag, value string) {
		binary.Write(&dyn, binary.LittleEndian, elf.Dyn64{Tag: int64(tag), Val: uint64(len(text))})
		text = append(append(text, value...), 0)
	}
	for _, n := range needed {
		entry(elf.DT_NEEDED, n)
	}
	if runpath != "" {
		entry(elf.DT_RUNPATH, runpath)
	}
	return makeELF(elf.ET_DYN, interp,
		section{name: ".dynamic", kind: elf.SHT_DYNAMIC, link: 2, data: dyn.Bytes()},
		section{name: ".dynstr", kind: elf.SHT_STRTAB, data: text})
}

// makeInit writes a file that passes for a static program.
func makeInit(t testing.TB) string {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "guestinit"), makeELF(elf.ET_EXEC, ""), 0o700)
}
