package spawn

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

const wordSize = unsafe.Sizeof(uintptr(0))

// packProgram puts what execve(2) takes into memory that workers inherit, and
// returns the address of the Program there. It is shared memory: what is private
// to this process is kept from its children.
func (a *arena) packProgram(path, dir string, args, env []string) (uintptr, error) {
	size := unsafe.Sizeof(worker.Program{}) + wordSize*uintptr(len(args)+len(env)+2) + uintptr(len(path)+len(dir)+2)
	for _, list := range [][]string{args, env} {
		for _, s := range list {
			size += uintptr(len(s)) + 1
		}
	}
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, explainMmap(size, err)
	}
	a.images = append(a.images, mem)
	base := bare.Address(mem)
	lists := base + unsafe.Sizeof(worker.Program{})
	text := lists + wordSize*uintptr(len(args)+len(env)+2)
	put := func(s string) uintptr { // mem ends in zeros, so every text does
		at := text
		copy(mem[at-base:], s)
		text += uintptr(len(s)) + 1
		return at
	}
	list := func(texts []string) uintptr {
		at := lists
		for _, s := range texts {
			*(*uintptr)(bare.Pointer(lists)) = put(s)
			lists += wordSize
		}
		lists += wordSize
		return at
	}
	*worker.ProgramAt(base) = worker.Program{Path: put(path), Args: list(args), Env: list(env), Dir: put(dir)}
	return base, nil
}

// unpackPrograms unmaps what packProgram made.
func (a *arena) unpackPrograms() error {
	var errs []error
	for _, mem := range a.images {
		if err := unix.Munmap(mem); err != nil {
			errs = append(errs, fmt.Errorf("unmap program: %w", err))
		}
	}
	a.images = nil
	return errors.Join(errs...)
}
