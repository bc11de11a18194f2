//go:build linux && amd64

package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KVM ioctls and offsets, from include/uapi/linux/kvm.h and
// arch/x86/include/uapi/asm/kvm.h. Structures are byte slices at fixed offsets,
// so that only the addresses that the kernel must see are unsafe.
const (
	kvmGetAPIVersion       = 0xAE00
	kvmCreateVM            = 0xAE01
	kvmGetVCPUMmapSize     = 0xAE04
	kvmCreateVCPU          = 0xAE41
	kvmSetUserMemoryRegion = 0x4020AE46
	kvmSetTSSAddr          = 0xAE47
	kvmRun                 = 0xAE80
	kvmSetRegs             = 0x4090AE82
	kvmGetSregs            = 0x8138AE83
	kvmSetSregs            = 0x4138AE84

	kvmAPIVersion = 12
	kvmExitHLT    = 5

	regsSize, regsRCX, regsRIP, regsRFlags = 144, 2 * 8, 16 * 8, 17 * 8
	sregsSize, sregsCR0, segmentSize       = 312, 224, 24
	runImmediateExit, runExitReason        = 1, 8
)

// countdown is "1: dec ecx; jnz 1b; hlt" in 32-bit code.
var countdown = [...]byte{0x49, 0x75, 0xfd, 0xf4}

// timeVCPU runs probeRounds of a counting loop in a bare vCPU, in flat 32-bit
// protected mode, and returns the best time of five. It ends with ctx: a vCPU
// that never leaves the loop is interrupted.
func timeVCPU(ctx context.Context, device string) (time.Duration, error) {
	return timeRounds(ctx, device, probeRounds)
}

func timeRounds(ctx context.Context, device string, rounds uint32) (time.Duration, error) {
	type result struct {
		took time.Duration
		err  error
	}
	done := make(chan result, 1)
	v := &vcpu{rounds: rounds, tid: make(chan int, 1)}
	finish := func(r result) (time.Duration, error) {
		if v.run != nil {
			unix.Munmap(v.run) // here, where interrupt cannot write to it any more
		}
		return r.took, r.err
	}
	go func() {
		// KVM wants all of a vCPU's ioctls on one thread; it stays locked and
		// dies with the goroutine.
		runtime.LockOSThread()
		took, err := v.measure(ctx, device)
		done <- result{took, err}
	}()
	select {
	case r := <-done:
		return finish(r)
	case <-ctx.Done():
	}
	v.interrupt()
	select {
	case r := <-done:
		return finish(r)
	case <-time.After(probeTimeout):
		return 0, fmt.Errorf("stop vCPU: %w", ctx.Err())
	}
}

// vcpu is one virtual machine with one vCPU and one page of memory.
type vcpu struct {
	rounds uint32
	fd     int
	run    []byte   // struct kvm_run, shared with the kernel
	tid    chan int // the thread in KVM_RUN, once it is about to enter
}

func (v *vcpu) measure(ctx context.Context, device string) (time.Duration, error) {
	dev, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	kvm := int(dev.Fd())
	if n, err := unix.IoctlRetInt(kvm, kvmGetAPIVersion); err != nil || n != kvmAPIVersion {
		return 0, fmt.Errorf("KVM_GET_API_VERSION: %d, want %d: %w", n, kvmAPIVersion, orMismatch(err))
	}
	vm, err := unix.IoctlRetInt(kvm, kvmCreateVM)
	if err != nil {
		return 0, fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	defer unix.Close(vm)
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("mmap guest memory: %w", err)
	}
	defer unix.Munmap(mem)
	copy(mem, countdown[:])
	if err := v.create(kvm, vm, mem); err != nil {
		return 0, err
	}
	defer unix.Close(v.fd)
	v.tid <- unix.Gettid()

	best := time.Duration(1<<63 - 1)
	for i := 0; i < 5 && ctx.Err() == nil; i++ {
		took, err := v.once(ctx)
		if err != nil {
			return 0, err
		}
		best = min(best, took)
	}
	return best, ctx.Err()
}

// create gives the machine its memory and its vCPU flat 32-bit segments.
func (v *vcpu) create(kvm, vm int, mem []byte) error {
	region := make([]byte, 32)
	binary.LittleEndian.PutUint64(region[16:], uint64(len(mem)))
	binary.LittleEndian.PutUint64(region[24:], uint64(uintptr(unsafe.Pointer(&mem[0]))))
	if err := ioctlBytes(vm, kvmSetUserMemoryRegion, region); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION: %w", err)
	}
	// Intel without unrestricted guests needs three pages of its own.
	if err := unix.IoctlSetInt(vm, kvmSetTSSAddr, 0xfffbd000); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR: %w", err)
	}
	size, err := unix.IoctlRetInt(kvm, kvmGetVCPUMmapSize)
	if err != nil || size < 4096 {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes: %w", size, orMismatch(err))
	}
	fd, err := unix.IoctlRetInt(vm, kvmCreateVCPU)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VCPU: %w", err)
	}
	run, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("mmap vCPU: %w", err)
	}
	if err := flatSegments(fd); err != nil {
		unix.Munmap(run)
		unix.Close(fd)
		return err
	}
	v.fd, v.run = fd, run
	return nil
}

func flatSegments(fd int) error {
	sregs := make([]byte, sregsSize)
	if err := ioctlBytes(fd, kvmGetSregs, sregs); err != nil {
		return fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	for i := range 6 { // cs, ds, es, fs, gs, ss
		typ, selector := byte(3), uint16(16) // read/write data
		if i == 0 {
			typ, selector = 11, 8 // execute/read code
		}
		s := sregs[i*segmentSize:]
		clear(s[:segmentSize])
		binary.LittleEndian.PutUint32(s[8:], 0xffffffff)
		binary.LittleEndian.PutUint16(s[12:], selector)
		s[14], s[15], s[17], s[18], s[20] = typ, 1, 1, 1, 1 // type, present, db, s, g
	}
	cr0 := binary.LittleEndian.Uint64(sregs[sregsCR0:]) | 1
	binary.LittleEndian.PutUint64(sregs[sregsCR0:], cr0)
	if err := ioctlBytes(fd, kvmSetSregs, sregs); err != nil {
		return fmt.Errorf("KVM_SET_SREGS: %w", err)
	}
	return nil
}

// once runs the loop from its start to its hlt.
func (v *vcpu) once(ctx context.Context) (time.Duration, error) {
	regs := make([]byte, regsSize)
	binary.LittleEndian.PutUint64(regs[regsRCX:], uint64(v.rounds))
	binary.LittleEndian.PutUint64(regs[regsRFlags:], 2)
	if err := ioctlBytes(v.fd, kvmSetRegs, regs); err != nil {
		return 0, fmt.Errorf("KVM_SET_REGS: %w", err)
	}
	start := time.Now()
	for {
		_, err := unix.IoctlRetInt(v.fd, kvmRun)
		if errors.Is(err, unix.EINTR) && ctx.Err() == nil {
			continue // the runtime's own preemption signal
		}
		if err != nil {
			return 0, fmt.Errorf("KVM_RUN: %w", err)
		}
		break
	}
	took := time.Since(start)
	if reason := binary.LittleEndian.Uint32(v.run[runExitReason:]); reason != kvmExitHLT {
		return 0, fmt.Errorf("KVM_RUN: exit reason %d, want %d (hlt)", reason, kvmExitHLT)
	}
	return took, nil
}

// interrupt ends a KVM_RUN that does not end by itself. The byte is set before
// the signal, so a thread that has not entered yet does not stay in either.
func (v *vcpu) interrupt() {
	select {
	case tid := <-v.tid:
		v.run[runImmediateExit] = 1
		unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
	default:
	}
}

func ioctlBytes(fd int, req uint, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// orMismatch stands in where a call succeeded with an answer nobody can use.
func orMismatch(err error) error {
	if err == nil {
		return errors.ErrUnsupported
	}
	return err
}
