package main

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// The map "control" is one value: what the BPF side is told to do.
const (
	modeOffset  = 0 // u64, one of the modes
	controlSize = 8
)

// The modes of the BPF side.
const (
	modeRun   = 0
	modeStall = 1 // enqueue keeps every task for itself
	modeError = 2 // enqueue calls scx_bpf_error()
	modeQuit  = 3 // enqueue calls scx_bpf_exit()
)

// The map "exit" is one value: what the kernel told ops.exit.
const (
	exitKindOffset   = 0 // u64, enum scx_exit_kind, 0 until ops.exit was called
	exitReasonOffset = 8
	exitReasonSize   = 128
	exitMsgOffset    = exitReasonOffset + exitReasonSize
	exitMsgSize      = 1024
	exitDumpOffset   = exitMsgOffset + exitMsgSize
	exitDumpSize     = 32768
	exitSize         = exitDumpOffset + exitDumpSize
)

// Numbers of the kernel's: dispatch queues and time slice, include/linux/sched/ext.h.
const (
	dsqGlobal = int64(-1<<63 | 1)
	dsqLocal  = int64(-1<<63 | 2)
	slice     = 5_000_000 // ns
)

// opsLayout is what this program fills in of the kernel's struct sched_ext_ops,
// whose own layout differs between kernels: the loader goes by the names.
var opsLayout = struct {
	name, flags, timeout, programs, size uint32
}{0, 128, 136, 144, 168}

// members are the members of sched_ext_ops that are BPF programs here.
var members = [...]string{"select_cpu", "enqueue", "exit"}

// schedulerOptions is what the kernel is told of the scheduler.
type schedulerOptions struct {
	name      string
	flags     uint64
	timeoutMs uint32
}

// collection describes programs and maps for the loader.
func collection(o schedulerOptions) (*ebpf.CollectionSpec, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read type information of the kernel: %w", err)
	}
	var ops *btf.Struct
	if err := kernel.TypeByName("bpf_struct_ops_sched_ext_ops", &ops); err != nil {
		return nil, fmt.Errorf("this kernel has no sched_ext (CONFIG_SCHED_CLASS_EXT): %w", err)
	}
	fn, err := kernelFunctions(kernel)
	if err != nil {
		return nil, err
	}
	bytes := func(n int) *ebpf.MapSpec {
		return &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(n), MaxEntries: 1}
	}
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"control": bytes(controlSize), "exit": bytes(exitSize), "ops": opsMap(o)},
		Programs: map[string]*ebpf.ProgramSpec{
			"select_cpu": {Instructions: selectCPU(fn)},
			"enqueue":    {Instructions: enqueue(fn)},
			"exit":       {Instructions: exit()},
		},
	}
	for name, p := range spec.Programs {
		p.Name, p.Type, p.License, p.AttachTo = name, ebpf.StructOps, "GPL", "sched_ext_ops:"+name
	}
	return spec, nil
}

// opsMap is the struct_ops map: the value of struct sched_ext_ops.
func opsMap(o schedulerOptions) *ebpf.MapSpec {
	u32, u64 := &btf.Int{Name: "u32", Size: 4}, &btf.Int{Name: "u64", Size: 8}
	char := &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	t := &btf.Struct{Name: "sched_ext_ops", Size: opsLayout.size, Members: []btf.Member{
		{Name: "name", Type: &btf.Array{Index: u32, Type: char, Nelems: 128}, Offset: btf.Bits(8 * opsLayout.name)},
		{Name: "flags", Type: u64, Offset: btf.Bits(8 * opsLayout.flags)},
		{Name: "timeout_ms", Type: u32, Offset: btf.Bits(8 * opsLayout.timeout)},
	}}
	for i, name := range members {
		at := opsLayout.programs + 8*uint32(i)
		t.Members = append(t.Members, btf.Member{Name: name, Type: &btf.Pointer{Target: (*btf.Void)(nil)}, Offset: btf.Bits(8 * at)})
	}
	value := make([]byte, opsLayout.size)
	copy(value[opsLayout.name:opsLayout.name+127], o.name)
	binary.NativeEndian.PutUint64(value[opsLayout.flags:], o.flags)
	binary.NativeEndian.PutUint32(value[opsLayout.timeout:], o.timeoutMs)
	return &ebpf.MapSpec{
		Name: "ops", Type: ebpf.StructOpsMap, Flags: 1 << 13, // BPF_F_LINK
		KeySize: 4, Key: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		ValueSize: opsLayout.size, Value: t, MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: value}},
	}
}

// kernelFunctions finds the kernel functions that the programs call, and
// returns what makes a call of one.
func kernelFunctions(kernel *btf.Spec) (func(name string) asm.Instruction, error) {
	ids := make(map[string]btf.TypeID)
	for _, name := range []string{"scx_bpf_select_cpu_dfl", "scx_bpf_dsq_insert", "scx_bpf_error_bstr", "scx_bpf_exit_bstr"} {
		types, err := kernel.AnyTypesByName(name) // later versions of it too, as NAME___v2
		if err != nil {
			return nil, fmt.Errorf("find %s in the kernel: %w", name, err)
		}
		for _, t := range types {
			if fn, ok := t.(*btf.Func); !ok || fn.Name != name {
				continue
			}
			if ids[name], err = kernel.TypeID(t); err != nil {
				return nil, fmt.Errorf("find %s in the kernel: %w", name, err)
			}
		}
		if ids[name] == 0 {
			return nil, fmt.Errorf("find %s in the kernel: it has only %v", name, types)
		}
	}
	return func(name string) asm.Instruction {
		return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(ids[name])}
	}, nil
}

// loadMode loads the mode into R0.
func loadMode() asm.Instructions {
	return asm.Instructions{
		asm.LoadMapValue(asm.R0, 0, modeOffset).WithReference("control"),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.DWord),
	}
}

// selectCPU is s32 select_cpu(struct task_struct *p, s32 prev_cpu, u64
// wake_flags): the kernel's own choice, and straight onto that CPU if it is
// idle. When not to run, it leaves the task where it was, to be enqueued.
func selectCPU(fn func(string) asm.Instruction) asm.Instructions {
	return append(append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, loadMode()...), asm.Instructions{
		asm.LoadMem(asm.R7, asm.R6, 8, asm.DWord), // prev_cpu
		asm.JNE.Imm(asm.R0, modeRun, "out"),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord), // is_idle = modeRun = 0
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.LoadMem(asm.R3, asm.R6, 16, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.RFP),
		asm.Add.Imm(asm.R4, -8),
		fn("scx_bpf_select_cpu_dfl"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.Byte),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
		asm.LoadImm(asm.R2, dsqLocal, asm.DWord),
		asm.LoadImm(asm.R3, slice, asm.DWord),
		asm.Mov.Imm(asm.R4, 0),
		fn("scx_bpf_dsq_insert"),
		asm.Mov.Reg(asm.R0, asm.R7).WithSymbol("out"),
		asm.Return(),
	}...)
}

// enqueue is void enqueue(struct task_struct *p, u64 enq_flags): first in, first
// out, through the queue that all CPUs take from.
func enqueue(fn func(string) asm.Instruction) asm.Instructions {
	ins := append(append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, loadMode()...), asm.Instructions{
		asm.JEq.Imm(asm.R0, modeStall, "out"),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
		asm.LoadImm(asm.R2, dsqGlobal, asm.DWord),
		asm.LoadImm(asm.R3, slice, asm.DWord),
		asm.LoadMem(asm.R4, asm.R6, 8, asm.DWord),
		fn("scx_bpf_dsq_insert"),
		asm.JEq.Imm(asm.R8, modeError, "error"),
		asm.JEq.Imm(asm.R8, modeQuit, "quit"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}...)
	ins = append(ins, text("error", asm.R1, "scx_fifo was told to fail")...)
	ins = append(ins,
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.Mov.Imm(asm.R3, 8),
		fn("scx_bpf_error_bstr"),
		asm.Ja.Label("out"),
	)
	ins = append(ins, text("quit", asm.R2, "scx_fifo was told to quit")...)
	return append(ins,
		asm.Mov.Imm(asm.R1, 7), // exit_code
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 8),
		fn("scx_bpf_exit_bstr"),
		asm.Ja.Label("out"),
	)
}

// text puts a text onto the stack, below the one word of arguments that the
// kernel's format functions want, and its address into dst.
func text(label string, dst asm.Register, s string) asm.Instructions {
	b := make([]byte, (len(s)+8)&^7) // ends in a NUL at least
	copy(b, s)
	ins := asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(label), asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord)}
	for i := 0; i < len(b); i += 8 {
		ins = append(ins,
			asm.LoadImm(asm.R0, int64(binary.NativeEndian.Uint64(b[i:])), asm.DWord),
			asm.StoreMem(asm.RFP, int16(-8-len(b)+i), asm.R0, asm.DWord),
		)
	}
	return append(ins, asm.Mov.Reg(dst, asm.RFP), asm.Add.Imm(dst, int32(-8-len(b))))
}

// exit is void exit(struct scx_exit_info *ei): it keeps what the kernel says.
// Its layout: kind at 0 (int), reason at 24, msg at 48, dump at 56.
func exit() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMapValue(asm.R7, 0, 0).WithReference("exit"),
	}
	for _, s := range []struct {
		field        int16
		offset, size int32
	}{{24, exitReasonOffset, exitReasonSize}, {48, exitMsgOffset, exitMsgSize}, {56, exitDumpOffset, exitDumpSize}} {
		ins = append(ins,
			asm.Mov.Reg(asm.R1, asm.R7),
			asm.Add.Imm(asm.R1, s.offset),
			asm.Mov.Imm(asm.R2, s.size),
			asm.LoadMem(asm.R3, asm.R6, s.field, asm.DWord),
			asm.FnProbeReadKernelStr.Call(),
		)
	}
	return append(ins,
		asm.LoadMem(asm.R1, asm.R6, 0, asm.Word),
		asm.StoreMem(asm.R7, exitKindOffset, asm.R1, asm.DWord), // last: the reader waits for it
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	)
}
