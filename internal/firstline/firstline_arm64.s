#include "textflag.h"

// func syscall3(number, a uintptr, b unsafe.Pointer, c uintptr) int
TEXT ·syscall3(SB),NOSPLIT,$0-40
	MOVD	number+0(FP), R8
	MOVD	a+8(FP), R0
	MOVD	b+16(FP), R1
	MOVD	c+24(FP), R2
	SVC
	MOVD	R0, ret+32(FP)
	RET

// func syscall4(number, a uintptr, b, c unsafe.Pointer, d uintptr) int
TEXT ·syscall4(SB),NOSPLIT,$0-48
	MOVD	number+0(FP), R8
	MOVD	a+8(FP), R0
	MOVD	b+16(FP), R1
	MOVD	c+24(FP), R2
	MOVD	d+32(FP), R3
	SVC
	MOVD	R0, ret+40(FP)
	RET
