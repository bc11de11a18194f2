#include "textflag.h"

// noopHandler is the handler of a signal that is only to interrupt.
TEXT ·noopHandler(SB),NOSPLIT|NOFRAME,$0
	RET

// func noopAddress() uintptr
TEXT ·noopAddress(SB),NOSPLIT,$0-8
	LEAQ	·noopHandler(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
