package firstline

// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl).
const (
	write        = 1
	getpid       = 39
	clockGettime = 228
	readlinkat   = 267
)
