package scx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysfs is where the kernel tells of sched_ext.
const sysfs = "/sys/kernel/sched_ext"

// The states of sched_ext that matter here; "enabling" and "disabling" lie between.
const (
	stateEnabled  = "enabled"
	stateDisabled = "disabled"
)

// maxAttribute is how much is read of one file of sysfs, in bytes. The kernel
// gives a page at most.
const maxAttribute = 4096

// maxEvents bounds the event counters that are kept.
const maxEvents = 64

// ErrUnsupported is matched by an error of Start on a kernel without sched_ext.
var ErrUnsupported = errors.New("this kernel has no sched_ext")

// Supported tells whether the running kernel has sched_ext. An error matches
// ErrUnsupported and says what to do.
func Supported() error { return kernel{sysfs}.supported() }

// kernel reads what the kernel tells of sched_ext below a directory.
type kernel struct{ dir string }

func (k kernel) supported() error {
	_, err := os.Stat(filepath.Join(k.dir, "state"))
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("find out about sched_ext: %w", err)
	}
	release := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Errorf("%w: %s does not exist on %s; use Linux 6.12 or later with CONFIG_SCHED_CLASS_EXT, such as what guestinit kernel fetch 7.2 brings", ErrUnsupported, k.dir, release)
}

// attribute is the content of a file, without the end of line; "" if there is
// none.
func (k kernel) attribute(name string) string {
	f, err := os.Open(filepath.Join(k.dir, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAttribute))
	if err != nil {
		return ""
	}
	return string(bytes.TrimRight(b, "\n"))
}

func (k kernel) number(name string) uint64 {
	n, _ := strconv.ParseUint(k.attribute(name), 10, 64) // 0 where the kernel lacks it
	return n
}

func (k kernel) state() string { return k.attribute("state") }

// scheduler is the name of the scheduler that is loaded, "" if none is.
func (k kernel) scheduler() string { return k.attribute("root/ops") }

// events are the counters of the scheduler that is loaded; nil if none is, or
// where the kernel has none (before 6.14).
func (k kernel) events() map[string]uint64 { return parseEvents(k.attribute("root/events")) }

// parseEvents reads lines of a name and a number. Other lines are left out.
func parseEvents(text string) map[string]uint64 {
	var events map[string]uint64
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 2 || len(events) >= maxEvents {
			continue
		}
		n, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			continue
		}
		if events == nil {
			events = make(map[string]uint64)
		}
		events[words[0]] = n
	}
	return events
}
