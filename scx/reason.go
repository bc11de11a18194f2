package scx

import "strings"

// reason is why the kernel ended a scheduler.
type reason struct {
	what    string // category, in the kernel's words: "runnable task stall"
	message string // details, may be empty
}

func (r reason) String() string {
	if r.message == "" {
		return r.what
	}
	return r.what + ": " + r.message
}

// What the kernel says of ends that have a class of their own.
const (
	reasonStall        = "runnable task stall"
	reasonUnregistered = "unregistered from user space"
)

// kind is the class of failure that the reason stands for.
func (r reason) kind() string {
	switch r.what {
	case reasonStall:
		return Stalled
	case reasonUnregistered:
		return Exited
	}
	return Ejected
}

// reasonInLog finds the last end of a scheduler in lines of the kernel's log:
//
//	sched_ext: BPF scheduler "NAME" disabled (WHAT)
//	sched_ext: NAME: MESSAGE
func reasonInLog(lines []string) (r reason, ok bool) {
	name := ""
	for _, line := range lines {
		line, about := strings.CutPrefix(line, prefix)
		if !about {
			continue
		}
		if rest, is := strings.CutPrefix(line, `BPF scheduler "`); is {
			n, what, is := strings.Cut(rest, `" disabled (`)
			if is {
				name, r, ok = n, reason{what: strings.TrimSuffix(what, ")")}, true
			}
			continue
		}
		if message, is := strings.CutPrefix(line, name+": "); is && ok && r.message == "" {
			r.message = message
		}
	}
	return r, ok
}

// reasonInOutput finds what the program itself says of its scheduler's end, the
// way the schedulers of the kernel's tools do: a line "EXIT: WHAT (MESSAGE)".
func reasonInOutput(output string) (r reason, ok bool) {
	for line := range strings.Lines(output) {
		_, text, is := strings.Cut(strings.TrimRight(line, "\r\n"), "EXIT: ")
		if !is {
			continue
		}
		what, message, _ := strings.Cut(text, " (")
		r, ok = reason{what, strings.TrimSuffix(message, ")")}, true
	}
	return r, ok
}

// lastLine is the last line that holds anything but the end of the scheduler,
// which is in the reason already.
func lastLine(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "EXIT: ") {
			last = line
		}
	}
	return last
}
