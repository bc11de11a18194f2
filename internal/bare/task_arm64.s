#include "go_asm.h"
#include "textflag.h"

#define SYS_rt_sigprocmask 135
#define SYS_clone3 435
#define SIG_SETMASK 2
#define g_m(r) 48(r)

// func cloneTask(args *CloneArgs, size uintptr, fn uintptr, arg uintptr, tcb uintptr) uintptr
//
// As on amd64. TPIDR_EL0 holds the TCB, set by CLONE_SETTLS; R28 is g.
TEXT ·cloneTask(SB),NOSPLIT,$16-48
	MOVD	$-1, R0
	MOVD	R0, 8(RSP)
	MOVD	$SYS_rt_sigprocmask, R8
	MOVD	$SIG_SETMASK, R0
	ADD	$8, RSP, R1
	ADD	$16, RSP, R2
	MOVD	$8, R3
	SVC
	MOVD	16(RSP), R9
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	fn+16(FP), R10
	MOVD	arg+24(FP), R11
	MOVD	tcb+32(FP), R12
	MOVD	$SYS_clone3, R8
	SVC
	CBZ	R0, child
	MOVD	R0, ret+40(FP)
	MOVD	$SYS_rt_sigprocmask, R8
	MOVD	$SIG_SETMASK, R0
	ADD	$16, RSP, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	SVC
	RET
child:
	MOVD	ZR, R29
	MOVD	R9, TCB_oldMask(R12)
	MOVD	R12, g
	MOVD	R11, R0
	MOVD	R10, R26
	MOVD	(R10), R13
	SUB	$64, RSP
	CALL	(R13)
	BRK	$0

// func Syscall6(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr
TEXT ·Syscall6(SB),NOSPLIT,$0-64
	MOVD	nr+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	a4+32(FP), R3
	MOVD	a5+40(FP), R4
	MOVD	a6+48(FP), R5
	SVC
	MOVD	R0, ret+56(FP)
	RET

// func callC(fn, a1, a2, a3 uintptr) uintptr
//
// R19 and R20 are callee-saved in the C ABI and free in ABI0; R28 (g) is kept
// by the callee too.
TEXT ·callC(SB),NOSPLIT,$16-40
	MOVD	fn+0(FP), R9
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	RSP, R19
	MOVD	R19, R20
	AND	$~15, R20
	MOVD	R20, RSP
	CALL	(R9)
	MOVD	R19, RSP
	MOVD	R0, ret+32(FP)
	RET

// func Spin(n uint64)
TEXT ·Spin(SB),NOSPLIT,$0-8
	MOVD	n+0(FP), R0
	CBZ	R0, done
loop:
	YIELD
	SUB	$1, R0
	CBNZ	R0, loop
done:
	RET

// func currentTCB() uintptr
TEXT ·currentTCB(SB),NOSPLIT,$0-8
	MRS	TPIDR_EL0, R0
	MOVD	R0, ret+0(FP)
	RET

// stopHandler is the SIGUSR1 handler of a process task: it sets the stop word.
TEXT ·stopHandler(SB),NOSPLIT|NOFRAME,$0
	MRS	TPIDR_EL0, R0
	MOVD	TCB_stopWord(R0), R0
	MOVW	$1, R1
	MOVW	R1, (R0)
	RET

// faultHandler runs on the alternate stack: it puts the alternate g in place and
// goes on in Go. It does not return.
TEXT ·faultHandler(SB),NOSPLIT|NOFRAME,$0
	MRS	TPIDR_EL0, R3
	ADD	$TCB__size, R3, g
	SUB	$64, RSP
	MOVD	R0, 8(RSP)
	MOVD	R1, 16(RSP)
	MOVD	R2, 24(RSP)
	CALL	·faultInChild(SB)
	BRK	$0

// threadFaultHandler stands before the Go runtime's handler while tasks are
// threads of a Go process. A zero m in g (runtime.g.m) means the thread is a
// task; every other fault is the runtime's own.
TEXT ·threadFaultHandler(SB),NOSPLIT|NOFRAME,$0
	CBZ	g, runtimes
	MOVD	g_m(g), R3
	CBNZ	R3, runtimes
	B	·faultHandler(SB)
runtimes:
	LSL	$3, R0, R3
	MOVD	$·runtimeHandlers(SB), R4
	ADD	R3, R4
	MOVD	(R4), R3
	B	(R3)

// func codeAddresses() (stop, fault, threadFault, restorer uintptr)
//
// arm64 needs no restorer: the kernel returns through the vDSO.
TEXT ·codeAddresses(SB),NOSPLIT,$0-32
	MOVD	$·stopHandler(SB), R0
	MOVD	R0, stop+0(FP)
	MOVD	$·faultHandler(SB), R0
	MOVD	R0, fault+8(FP)
	MOVD	$·threadFaultHandler(SB), R0
	MOVD	R0, threadFault+16(FP)
	MOVD	ZR, restorer+24(FP)
	RET
