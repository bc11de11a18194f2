package bare

// registers reads the program counter, stack pointer and frame pointer out of
// a ucontext (arch/arm64/include/uapi/asm/sigcontext.h: sigcontext at byte 176,
// regs[31], sp and pc behind fault_address).
func registers(ctx uintptr) (pc, sp, fp uint64) {
	const regs, x29, spIndex, pcIndex = 176 + 8, 29, 31, 32
	at := func(i uintptr) uint64 { return *(*uint64)(Pointer(ctx + regs + 8*i)) }
	return at(pcIndex), at(spIndex), at(x29)
}
