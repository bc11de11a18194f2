#include "textflag.h"

// func load(w word) uint16
TEXT ·load(SB), NOSPLIT, $0-10
	MOVQ	w+0(FP), AX
	MOVWLZX	(AX), BX
	MOVW	BX, ret+8(FP)
	RET

// func store(w word, v uint16)
TEXT ·store(SB), NOSPLIT, $0-10
	MOVQ	w+0(FP), AX
	MOVWLZX	v+8(FP), BX
	MOVW	BX, (AX)
	RET

// func fence()
TEXT ·fence(SB), NOSPLIT, $0-0
	MFENCE
	RET
