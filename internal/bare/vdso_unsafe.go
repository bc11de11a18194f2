package bare

import (
	"debug/elf"
	"unsafe"

	"golang.org/x/sys/unix"
)

const atSysinfoEHDR = 33 // AT_SYSINFO_EHDR of include/uapi/linux/auxvec.h

// maxVDSOSymbols bounds the walk over the vDSO's symbol table; real ones have
// about ten.
const maxVDSOSymbols = 256

// Prepare looks up what tasks need and cannot find themselves: the addresses of
// the signal handlers and of the vDSO functions behind Now and CPU, which make
// system calls where the vDSO lacks them. Call it once before the first Clone.
func Prepare() {
	handlers.stop, handlers.fault, handlers.threadFault, handlers.restorer = codeAddresses()
	auxv, err := unix.Auxv()
	if err != nil {
		return
	}
	for _, a := range auxv {
		if a[0] == atSysinfoEHDR && a[1] != 0 {
			vdso.clockGettime = vdsoSymbol(a[1], vdsoClockName)
			vdso.getcpu = vdsoSymbol(a[1], vdsoCPUName)
		}
	}
}

// vdsoSymbol is the address of a function in the ELF image that the kernel
// mapped at base, 0 if it has none. The image is the kernel's own, so its
// structure is trusted; the symbol count is bounded all the same.
func vdsoSymbol(base uintptr, name string) uintptr {
	if name == "" {
		return 0
	}
	hdr := (*elf.Header64)(Pointer(base))
	var load, dynamic uintptr
	haveLoad := false
	for i := range uintptr(hdr.Phnum) {
		ph := (*elf.Prog64)(Pointer(base + uintptr(hdr.Phoff) + i*uintptr(hdr.Phentsize)))
		switch elf.ProgType(ph.Type) {
		case elf.PT_LOAD:
			if !haveLoad {
				load, haveLoad = base+uintptr(ph.Off)-uintptr(ph.Vaddr), true
			}
		case elf.PT_DYNAMIC:
			dynamic = base + uintptr(ph.Off)
		}
	}
	if !haveLoad || dynamic == 0 {
		return 0
	}
	var symtab, strtab uintptr
	for d := dynamic; ; d += unsafe.Sizeof(elf.Dyn64{}) {
		dyn := (*elf.Dyn64)(Pointer(d))
		switch elf.DynTag(dyn.Tag) {
		case elf.DT_SYMTAB:
			symtab = load + uintptr(dyn.Val)
		case elf.DT_STRTAB:
			strtab = load + uintptr(dyn.Val)
		}
		if elf.DynTag(dyn.Tag) == elf.DT_NULL {
			break
		}
	}
	if symtab == 0 || strtab <= symtab {
		return 0
	}
	// The linker puts the string table right behind the symbols.
	n := min((strtab-symtab)/unsafe.Sizeof(elf.Sym64{}), maxVDSOSymbols)
	for i := range n {
		sym := (*elf.Sym64)(Pointer(symtab + i*unsafe.Sizeof(elf.Sym64{})))
		if sym.Value != 0 && cString(strtab+uintptr(sym.Name), len(name)+1) == name {
			return load + uintptr(sym.Value)
		}
	}
	return 0
}

// cString is the NUL-terminated string at addr, cut after limit bytes.
func cString(addr uintptr, limit int) string {
	b := unsafe.Slice((*byte)(Pointer(addr)), limit)
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
