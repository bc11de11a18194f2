package bare

// registers reads the program counter, stack pointer and frame pointer out of
// a ucontext (arch/x86/include/uapi/asm/sigcontext.h: gregs at byte 40, in the
// order of sigcontext_64).
func registers(ctx uintptr) (pc, sp, fp uint64) {
	const gregs, rbp, rsp, rip = 40, 10, 15, 16
	at := func(i uintptr) uint64 { return *(*uint64)(Pointer(ctx + gregs + 8*i)) }
	return at(rip), at(rsp), at(rbp)
}
