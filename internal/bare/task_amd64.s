#include "go_asm.h"
#include "textflag.h"

#define SYS_rt_sigprocmask 14
#define SYS_rt_sigreturn 15
#define SYS_exit_group 231
#define SYS_clone3 435
#define SIG_SETMASK 2
#define g_m(r) 48(r)

// func cloneTask(args *CloneArgs, size uintptr, fn uintptr, arg uintptr, tcb uintptr) uintptr
//
// All signals are blocked around the clone; the caller's mask comes back in the
// caller, and is handed to the task in its TCB. The task touches nothing of the
// caller's stack: everything it needs is in registers, which clone3 keeps.
TEXT ·cloneTask(SB),NOSPLIT,$16-48
	MOVQ	$-1, AX
	MOVQ	AX, 0(SP)
	MOVL	$SYS_rt_sigprocmask, AX
	MOVL	$SIG_SETMASK, DI
	LEAQ	0(SP), SI
	LEAQ	8(SP), DX
	MOVL	$8, R10
	SYSCALL
	MOVQ	8(SP), R9
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	fn+16(FP), R12
	MOVQ	arg+24(FP), R13
	MOVQ	tcb+32(FP), R8
	MOVL	$SYS_clone3, AX
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, ret+40(FP)
	MOVL	$SYS_rt_sigprocmask, AX
	MOVL	$SIG_SETMASK, DI
	LEAQ	8(SP), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	RET
child:
	XORL	BP, BP
	MOVQ	R9, TCB_oldMask(R8)
	MOVQ	R8, (TLS)
	MOVQ	R8, R14
	XORPS	X15, X15
	MOVQ	R13, AX
	MOVQ	R12, DX
	MOVQ	(R12), CX
	SUBQ	$64, SP
	CALL	CX
	UD2

// func Syscall6(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr
TEXT ·Syscall6(SB),NOSPLIT,$0-64
	MOVQ	nr+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	a4+32(FP), R10
	MOVQ	a5+40(FP), R8
	MOVQ	a6+48(FP), R9
	SYSCALL
	MOVQ	AX, ret+56(FP)
	RET

// func callC(fn, a1, a2, a3 uintptr) uintptr
//
// Calls a vDSO function on the task's own stack. R12 is callee-saved in the C
// ABI and free in ABI0.
TEXT ·callC(SB),NOSPLIT,$0-40
	MOVQ	fn+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	SP, R12
	ANDQ	$~15, SP
	CALL	AX
	MOVQ	R12, SP
	MOVQ	AX, ret+32(FP)
	RET

// func Spin(n uint64)
TEXT ·Spin(SB),NOSPLIT,$0-8
	MOVQ	n+0(FP), CX
	TESTQ	CX, CX
	JZ	done
loop:
	PAUSE
	DECQ	CX
	JNZ	loop
done:
	RET

// func currentTCB() uintptr
TEXT ·currentTCB(SB),NOSPLIT,$0-8
	MOVQ	(TLS), AX
	MOVQ	TCB_owner(AX), AX
	MOVQ	AX, ret+0(FP)
	RET

// stopHandler is the SIGUSR1 handler of a process task: it sets the stop word.
TEXT ·stopHandler(SB),NOSPLIT|NOFRAME,$0
	MOVQ	(TLS), AX
	MOVQ	TCB_owner(AX), AX
	MOVQ	TCB_stopWord(AX), AX
	MOVL	$1, (AX)
	RET

// faultHandler runs on the alternate stack: it puts the alternate g in place and
// goes on in Go. It does not return.
TEXT ·faultHandler(SB),NOSPLIT|NOFRAME,$0
	MOVQ	(TLS), AX
	MOVQ	TCB_owner(AX), AX
	MOVQ	AX, CX
	ADDQ	$TCB__size, CX
	MOVQ	CX, (TLS)
	MOVQ	CX, R14
	XORPS	X15, X15
	ANDQ	$~15, SP
	SUBQ	$64, SP
	MOVQ	DI, 0(SP)
	MOVQ	SI, 8(SP)
	MOVQ	DX, 16(SP)
	CALL	·faultInChild(SB)
	UD2

// threadFaultHandler stands before the Go runtime's handler while tasks are
// threads of a Go process. A zero m in the g of the TLS slot (runtime.g.m) means
// the thread is a task; every other fault is the runtime's own.
TEXT ·threadFaultHandler(SB),NOSPLIT|NOFRAME,$0
	MOVQ	(TLS), AX
	TESTQ	AX, AX
	JZ	runtimes
	CMPQ	g_m(AX), $0
	JNE	runtimes
	JMP	·faultHandler(SB)
runtimes:
	MOVQ	DI, AX
	SHLQ	$3, AX
	LEAQ	·runtimeHandlers(SB), CX
	ADDQ	AX, CX
	MOVQ	(CX), AX
	JMP	AX

// sigreturn is the restorer that the kernel wants on amd64.
TEXT ·sigreturn(SB),NOSPLIT|NOFRAME,$0
	MOVQ	$SYS_rt_sigreturn, AX
	SYSCALL
	INT	$3

// func codeAddresses() (stop, fault, threadFault, restorer uintptr)
TEXT ·codeAddresses(SB),NOSPLIT,$0-32
	LEAQ	·stopHandler(SB), AX
	MOVQ	AX, stop+0(FP)
	LEAQ	·faultHandler(SB), AX
	MOVQ	AX, fault+8(FP)
	LEAQ	·threadFaultHandler(SB), AX
	MOVQ	AX, threadFault+16(FP)
	LEAQ	·sigreturn(SB), AX
	MOVQ	AX, restorer+24(FP)
	RET
