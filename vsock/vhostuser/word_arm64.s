#include "textflag.h"

// func load(w word) uint16
TEXT ·load(SB), NOSPLIT, $0-10
	MOVD	w+0(FP), R0
	LDARH	(R0), R1
	MOVH	R1, ret+8(FP)
	RET

// func store(w word, v uint16)
TEXT ·store(SB), NOSPLIT, $0-10
	MOVD	w+0(FP), R0
	MOVHU	v+8(FP), R1
	STLRH	R1, (R0)
	RET

// func fence()
TEXT ·fence(SB), NOSPLIT, $0-0
	DMB	$0xb // inner shareable, all accesses
	RET
