#include "textflag.h"

// func aluScalar64(n uint64)
TEXT ·aluScalar64(SB),NOSPLIT,$0-8
	MOVD	n+0(FP), R0
	MOVD	$6364136223846793005, R1
	MOVD	$1442695, R2
	MOVD	$1, R3
	MOVD	$3, R4
	MOVD	$5, R5
	MOVD	$7, R6
loop:
	MADD	R1, R2, R3, R3
	MADD	R1, R2, R4, R4
	MADD	R1, R2, R5, R5
	MADD	R1, R2, R6, R6
	SUBS	$1, R0
	BNE	loop
	RET

// func aluVec128(n uint64)
//
// NEON multiplies and adds doubles: each chain grows by the same small number,
// so it stays normal for longer than any run.
TEXT ·aluVec128(SB),NOSPLIT,$0-8
	MOVD	n+0(FP), R0
	FMOVD	$1.5, F4
	VDUP	V4.D[0], V4.D2
	VEOR	V0.B16, V0.B16, V0.B16
	VEOR	V1.B16, V1.B16, V1.B16
	VEOR	V2.B16, V2.B16, V2.B16
	VEOR	V3.B16, V3.B16, V3.B16
loop:
	VFMLA	V4.D2, V4.D2, V0.D2
	VFMLA	V4.D2, V4.D2, V1.D2
	VFMLA	V4.D2, V4.D2, V2.D2
	VFMLA	V4.D2, V4.D2, V3.D2
	SUBS	$1, R0
	BNE	loop
	RET

// func aluVec256(n uint64)
//
// There are no wider vectors here than NEON's; vectorBits never asks for them.
TEXT ·aluVec256(SB),NOSPLIT,$0-8
	B	·aluVec128(SB)

// func aluVec512(n uint64)
TEXT ·aluVec512(SB),NOSPLIT,$0-8
	B	·aluVec128(SB)
