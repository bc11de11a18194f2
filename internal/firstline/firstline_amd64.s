#include "textflag.h"

// func syscall3(number, a uintptr, b unsafe.Pointer, c uintptr) int
TEXT ·syscall3(SB),NOSPLIT,$0-40
	MOVQ	number+0(FP), AX
	MOVQ	a+8(FP), DI
	MOVQ	b+16(FP), SI
	MOVQ	c+24(FP), DX
	SYSCALL
	MOVQ	AX, ret+32(FP)
	RET

// func syscall4(number, a uintptr, b, c unsafe.Pointer, d uintptr) int
TEXT ·syscall4(SB),NOSPLIT,$0-48
	MOVQ	number+0(FP), AX
	MOVQ	a+8(FP), DI
	MOVQ	b+16(FP), SI
	MOVQ	c+24(FP), DX
	MOVQ	d+32(FP), R10
	SYSCALL
	MOVQ	AX, ret+40(FP)
	RET
