package bare

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exec makes the calling process another program: execve(2). The arguments are
// addresses of a path and of lists of texts, as execve takes them. The program
// begins with no signal blocked and SIGPIPE deadly, as a shell would start it. It
// returns if the kernel refuses, with the handlers of this package gone.
func Exec(path, args, env uintptr) unix.Errno {
	if errno := sigaction(unix.SIGPIPE, sigDfl, 0); errno != 0 {
		return errno
	}
	mask := uint64(0)
	Syscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	return Errno(Syscall3(unix.SYS_EXECVE, path, args, env))
}

// Dup3 makes to a copy of the descriptor from, which is another one: dup3(2).
func Dup3(from, to int) unix.Errno {
	return Errno(Syscall3(unix.SYS_DUP3, uintptr(from), uintptr(to), 0))
}

// Chdir changes to the directory whose path lies at an address: chdir(2).
func Chdir(path uintptr) unix.Errno { return Errno(Syscall3(unix.SYS_CHDIR, path, 0, 0)) }

const migrationsKey = "nr_migrations"

// ReadMigrations reads how often the task changed its CPU, from
// /proc/thread-self/sched; ok is false where the kernel does not tell.
func ReadMigrations() (n uint64, ok bool) {
	fd, errno := openRead(pathSched)
	if errno != 0 {
		return 0, false
	}
	r := reader{fd: fd}
	matched := 0
	for c := r.next(); c >= 0 && !ok; c = r.next() {
		switch {
		case matched == len(migrationsKey):
			if c >= '0' && c <= '9' {
				r.pos-- // the digit is the number's
				n, _ = r.number()
				ok = true
			}
		case c == int(migrationsKey[matched]):
			matched++
		default:
			matched = 0
		}
	}
	Close(fd)
	return n, ok
}
