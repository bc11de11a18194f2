package guest

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/internal/firstline"
	"github.com/guestinit/guestinit/vsock"
)

// EnvPID1 is the environment variable that says "below guestinit as PID 1": set
// to 1 before anything is spawned and inherited by every descendant.
const EnvPID1 = "GUESTINIT_PID1"

// Options is what guest needs of packages it must not import.
type Options struct {
	// Version of guestinit, for the start line, hello and the report.
	Version string
	// Owned tells whether a child is one that somebody waits for by its pid;
	// the reaper leaves those alone. It may block for the time of a clone. A
	// pid must count as owned from before the clone that made it returns until
	// after it was waited for. Nil means that no child is owned.
	Owned func(pid int) bool
}

// IsInit tells whether this process is to be a guest's init: as PID 1 of a
// machine, not of a container, or as the uinit of u-root's init, which is told by
// name and parent.
func IsInit() bool {
	if firstline.PID1 {
		return true
	}
	return os.Getppid() == 1 && len(os.Args) > 0 && filepath.Base(os.Args[0]) == "uinit"
}

// Main is the life of a guest: it boots, runs the workload, reports and powers
// the machine off. It never returns.
func Main(run RunFunc, o Options) {
	started := time.Duration(firstline.Started)
	if started == 0 { // below another init
		started = bootTime()
	}
	debug.SetTraceback("all") // a crash of PID 1 has only the console
	setGC()

	b := &boot{
		opts: o,
		run:  run,
		sys:  realSystem{},
		root: "/",
		con:  newConsole(os.Stdout),
		dial: dialHost,
		line: cmdline.Line{Link: cmdline.LinkAuto},
	}
	b.bootMs = map[string]float64{"init": ms(started)}
	bye := b.live()
	b.powerOff(bye)
}

// gcShare is the part of the machine's memory at which the garbage collector
// begins to work.
const gcShare = 4

// setGC keeps the garbage collector away. PID 1 lives for one run and makes
// little garbage: a collection would free nothing worth its time, would run
// beside the workers that are measured, and under TCG the first one is code that
// has never run. The limit is for runs of many workers, whose reports add up.
func setGC() {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return
	}
	debug.SetMemoryLimit(gcLimit(uint64(info.Totalram), uint64(info.Unit)))
	debug.SetGCPercent(-1)
}

// gcLimit is the memory limit of a machine with total units of memory, in bytes.
func gcLimit(total, unit uint64) int64 {
	return int64(min(total/gcShare*max(unit, 1), 1<<40))
}

// live is everything between the start and the power-off. It does not panic.
func (b *boot) live() vsock.Bye {
	os.Setenv(EnvPID1, "1") // cannot fail: neither name nor value is odd
	err := guard("boot", b.boot)
	if err == nil {
		err = guard("run", b.execute)
	}
	return b.farewell(err)
}

// bootTime is CLOCK_BOOTTIME: the time since the kernel took up its clock.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // every kernel since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
