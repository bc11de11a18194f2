package qemu

import (
	"bytes"
	"strings"
	"sync"
	"time"
)

// Kind is what a console line means.
type Kind string

// The kinds of findings. Those that Crash reports are the end of the guest or
// of its good name; the others are symptoms, or milestones of a boot.
const (
	Panic        Kind = "panic"         // the kernel gave up
	InitKilled   Kind = "init-killed"   // a panic, because PID 1 ended
	NoInit       Kind = "no-init"       // a panic, because there is nothing to run as PID 1
	Oops         Kind = "oops"          // the kernel hit a fault of its own and went on
	ExecFailed   Kind = "exec-failed"   // the kernel found PID 1's program and could not run it
	UnpackFailed Kind = "unpack-failed" // the initramfs is damaged
	OutOfMemory  Kind = "out-of-memory" // the kernel killed a process for memory
	HungTask     Kind = "hung-task"
	SoftLockup   Kind = "soft-lockup"
	HardLockup   Kind = "hard-lockup"
	RCUStall     Kind = "rcu-stall"
	Warning      Kind = "warning"   // WARN_ON and friends
	SchedExt     Kind = "sched-ext" // the kernel has something to say of a sched_ext scheduler: mostly why it ended it
	RunInit      Kind = "run-init"
	ProgramPanic Kind = "go-panic"     // a Go program ended in a panic, the runtime's fatal error or a signal
	InitStarted  Kind = "init-started" // guestinit's first line
	InitFatal    Kind = "init-fatal"   // guestinit says why it ends
	InitDone     Kind = "init-done"    // guestinit's last line
)

// Crash reports whether k alone means that the guest crashed.
func (k Kind) Crash() bool {
	switch k {
	case Panic, InitKilled, NoInit, Oops:
		return true
	}
	return false
}

// Ends reports whether nothing more is to come from a guest after k.
func (k Kind) Ends() bool {
	return k == Panic || k == InitKilled || k == NoInit
}

// Finding is one console line that means something.
type Finding struct {
	Kind Kind
	Line string        // without timestamp and control characters
	At   time.Duration // since the watch began
}

// pattern is one way a line starts. Lines are matched at their start, after
// the timestamp, so that a program that prints "BUG: ..." within a sentence is
// not taken for the kernel.
type pattern struct {
	prefix   string
	contains string // also in the line
	kind     Kind
}

// patterns are tried in order; the first that fits wins. The texts are those
// of Linux 5.10 to 7.2: kernel/panic.c, kernel/exit.c, init/main.c,
// init/initramfs.c, init/do_mounts.c, kernel/watchdog.c, kernel/hung_task.c,
// kernel/rcu/tree_stall.h, kernel/sched/ext.c, mm/oom_kill.c, arch/x86/kernel/traps.c and dumpstack.c,
// arch/x86/mm/fault.c.
var patterns = [...]pattern{
	{"Kernel panic - not syncing: ", "Attempted to kill init", InitKilled},
	{"Kernel panic - not syncing: ", "No working init found", NoInit},
	{"Kernel panic - not syncing: ", "No init found", NoInit},
	{"Kernel panic - not syncing: ", "Unable to mount root fs", NoInit},
	{"Kernel panic - not syncing: ", "Requested init ", NoInit},
	{"Kernel panic - not syncing: ", "", Panic},
	{"PANIC: double fault", "", Oops},
	{"PANIC: early exception", "", Panic},
	{"watchdog: BUG: soft lockup", "", SoftLockup},
	{"BUG: soft lockup", "", SoftLockup},
	{"watchdog: Watchdog detected hard LOCKUP", "", HardLockup},
	{"watchdog: CPU", "hard LOCKUP", HardLockup},
	{"NMI watchdog: Watchdog detected hard LOCKUP", "", HardLockup},
	{"BUG: workqueue lockup", "", Warning},
	{"BUG: ", "", Oops},
	{"kernel BUG at ", "", Oops},
	{"Oops: ", "", Oops},
	{"Oops - ", "", Oops},
	{"Oops:", "", Oops},
	{"general protection fault", "", Oops},
	{"stack segment: ", "", Oops},
	{"invalid opcode: ", "", Oops},
	{"divide error: ", "", Oops},
	{"int3: ", "", Oops},
	{"double fault: ", "", Oops},
	{"traps: PANIC: double fault", "", Oops},
	{"Unable to handle kernel ", "", Oops},
	{"Internal error: ", "", Oops},
	{"UBSAN: ", "", Warning},
	{"WARNING: CPU: ", "", Warning},
	{"WARNING: ", " at ", Warning},
	{"rcu: INFO: rcu_", "", RCUStall},
	{"INFO: rcu_", "", RCUStall},
	{"rcu: rcu_", " kthread starved ", RCUStall},
	{"INFO: task ", " blocked for more than ", HungTask},
	{"sched_ext: ", "", SchedExt},
	{"Failed to execute ", "(error ", ExecFailed},
	{"Initramfs unpacking failed: ", "", UnpackFailed},
	{"rootfs image is not initramfs", "", UnpackFailed},
	{"Out of memory: Killed process ", "", OutOfMemory},
	{"Memory cgroup out of memory: Killed process ", "", OutOfMemory},
	{"Run ", " as init process", RunInit},
	{"panic: ", "", ProgramPanic},
	{"fatal error: ", "", ProgramPanic},
	{"SIGABRT: ", "", ProgramPanic}, // runtime/sigtab_linux_generic.go
	{"SIGBUS: ", "", ProgramPanic},
	{"SIGFPE: ", "", ProgramPanic},
	{"SIGILL: ", "", ProgramPanic},
	{"SIGQUIT: ", "", ProgramPanic},
	{"SIGSEGV: ", "", ProgramPanic},
	{"SIGSYS: ", "", ProgramPanic},
	{"SIGTRAP: ", "", ProgramPanic},
	{"This program can only be run on ", " processors with ", ProgramPanic}, // runtime/asm_amd64.s
	{"guestinit: start", "", InitStarted},
	{"guestinit: fatal: ", "", InitFatal},
	{"guestinit: done", "", InitDone},
}

const (
	maxLine     = 1024 // of a line; the rest is not looked at
	maxFindings = 256  // a guest that oopses for ever does not fill memory
)

// ConsoleWatch reads a guest's console and picks out the lines that mean
// something. It is safe for concurrent use.
type ConsoleWatch struct {
	mu       sync.Mutex
	start    time.Time
	line     []byte // the line so far, at most maxLine bytes
	findings []Finding
	last     string // the last line that holds anything
	first    time.Duration
	seen     bool
	notify   chan struct{}
}

// NewConsoleWatch returns a watch whose clock starts now.
func NewConsoleWatch() *ConsoleWatch {
	return &ConsoleWatch{start: time.Now(), notify: make(chan struct{}, 1)}
}

// Write never fails and never blocks.
func (w *ConsoleWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(p) > 0 && !w.seen {
		w.seen, w.first = true, time.Since(w.start)
		w.wake()
	}
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			w.keep(rest)
			break
		}
		w.keep(rest[:i])
		w.endLine()
		rest = rest[i+1:]
	}
	return len(p), nil
}

// Close ends the last line if it has no newline.
func (w *ConsoleWatch) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endLine()
	return nil
}

func (w *ConsoleWatch) keep(p []byte) {
	w.line = append(w.line, p[:min(len(p), maxLine-len(w.line))]...)
}

func (w *ConsoleWatch) endLine() {
	line := cleanLine(w.line)
	w.line = w.line[:0]
	if line == "" {
		return
	}
	w.last = line
	kind, ok := classify(line)
	if !ok || len(w.findings) == maxFindings {
		return
	}
	w.findings = append(w.findings, Finding{kind, line, time.Since(w.start)})
	w.wake()
}

func (w *ConsoleWatch) wake() {
	select {
	case w.notify <- struct{}{}:
	default:
	}
}

// Notify receives a value when there is a first byte or a new finding.
func (w *ConsoleWatch) Notify() <-chan struct{} { return w.notify }

// FirstByte says when the console first said anything.
func (w *ConsoleWatch) FirstByte() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first, w.seen
}

// LastLine returns the last line that is complete and holds anything.
func (w *ConsoleWatch) LastLine() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Findings returns what was found, in order.
func (w *ConsoleWatch) Findings() []Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Finding(nil), w.findings...)
}

// Find returns the first finding of one of the kinds.
func (w *ConsoleWatch) Find(kinds ...Kind) (Finding, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.findings {
		for _, k := range kinds {
			if f.Kind == k {
				return f, true
			}
		}
	}
	return Finding{}, false
}

func classify(line string) (Kind, bool) {
	for _, p := range patterns {
		if strings.HasPrefix(line, p.prefix) && strings.Contains(line, p.contains) {
			return p.kind, true
		}
	}
	return "", false
}

// cleanLine drops escape sequences, other control characters, and the
// timestamp and caller that printk puts first: "[    1.234567] [    T1] ".
func cleanLine(raw []byte) string {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == 0x1b:
			i = skipEscape(raw, i)
		case c == '\t':
			b.WriteByte(' ')
		case c >= 0x20 && c != 0x7f:
			b.WriteByte(c)
		}
	}
	line := strings.TrimSpace(strings.ToValidUTF8(b.String(), "\ufffd"))
	for strings.HasPrefix(line, "[") {
		stamp, rest, ok := strings.Cut(line[1:], "]")
		if !ok || !isStamp(stamp) {
			break
		}
		line = strings.TrimLeft(rest, " ")
	}
	return line
}

// skipEscape returns the index of the last byte of the escape sequence at i:
// CSI up to its final byte, or ESC and one more.
func skipEscape(raw []byte, i int) int {
	if i+1 >= len(raw) || raw[i+1] != '[' {
		return min(i+1, len(raw)-1)
	}
	for i += 2; i < len(raw) && (raw[i] < 0x40 || raw[i] > 0x7e); i++ {
	}
	return min(i, len(raw)-1)
}

// isStamp reports whether s is a printk time ("   1.234567") or caller
// ("    T1", "C3").
func isStamp(s string) bool {
	s = strings.TrimLeft(s, " ")
	if s == "" {
		return false
	}
	if (s[0] == 'T' || s[0] == 'C') && len(s) > 1 {
		s = s[1:]
	}
	return strings.Trim(s, "0123456789.") == ""
}
