package worker

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"structs"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/spec"
)

// Parameters of exec, by their place in its row.
const (
	ExecArgv = iota
	ExecEnv
	ExecCwd
	ExecOutputKiB
	ExecStopSignal
	ExecGrace
)

// maxArgs bounds the arguments of a program, and its variables.
const maxArgs = 256

// stopSignals are the signals that may tell a program to stop; StopSignal has
// their numbers.
var stopSignals = []string{"term", "int", "hup", "quit", "usr1", "usr2"}

// StopSignal is the signal that a value of stop_signal stands for.
func StopSignal(value uint64) unix.Signal {
	return [...]unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}[value]
}

// checkExec checks what ranges do not say. Whether there is such a program is
// for the machine to say that runs it.
func checkExec(in *Instance) error {
	name := in.Lists[ExecArgv][0]
	var errs []error
	if name == "" || strings.Contains(name, "/") && (!path.IsAbs(name) || strings.HasSuffix(name, "/")) {
		errs = append(errs, spec.At("argv[0]", fmt.Errorf("%q is neither an absolute path nor the name of a program", name)))
	}
	if dir := in.Texts[ExecCwd]; !path.IsAbs(dir) {
		errs = append(errs, spec.At("cwd", fmt.Errorf("%q is no absolute path", dir)))
	}
	return errors.Join(errs...)
}

// Program is what an exec worker becomes, in memory that it inherits: addresses
// of texts that end in NUL and of lists of such that end in 0, as execve(2)
// takes them.
type Program struct {
	_                    structs.HostLayout
	Path, Args, Env, Dir uintptr
}

// ProgramAt is the program at an address.
func ProgramAt(addr uintptr) *Program { return (*Program)(bare.Pointer(addr)) }

// execProgram becomes the program. The first descriptors of DataFDs are its
// input and its outputs. What follows is the spawner's to measure: it has the
// readings of begin to compare with. One unit of work and one pass say that the
// program was started.
func execProgram(s *Slab) {
	if s.Stopped() {
		return
	}
	p := ProgramAt(s.Program)
	s.CPUsUsed, s.HasMigrated = CPUMask{}, 0 // nobody will see where the program runs
	s.Migrations, _ = bare.ReadMigrations()
	atomic.StoreUint64(&s.WorkUnits, 1)
	atomic.StoreUint64(&s.Iterations, 1)
	errno := s.become(p)
	atomic.StoreUint64(&s.WorkUnits, 0)
	atomic.StoreUint64(&s.Iterations, 0)
	s.Migrations, s.ExecErrno = 0, uint32(errno)
	s.exit(ExitExec)
}

func (s *Slab) become(p *Program) unix.Errno {
	for to := 0; to < 3; to++ {
		if errno := bare.Dup3(int(s.DataFDs[to]), to); errno != 0 {
			return errno
		}
	}
	if errno := bare.Chdir(p.Dir); errno != 0 {
		return errno
	}
	return bare.Exec(p.Path, p.Args, p.Env)
}
