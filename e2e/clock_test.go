package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// maxCPUClockReads bounds the reads of a worker's own CPU clock, which is a system
// call on every kernel: before the loop, behind it, and at the end.
const maxCPUClockReads = 3

// TestClockIsNoSystemCall runs the work types under strace and counts the system
// calls for time of each worker: loops read the clock through the vDSO alone.
func TestClockIsNoSystemCall(t *testing.T) {
	needVDSOClock(t)
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("no strace; try: make deps")
	}
	for _, mode := range []string{spawn.Fork, spawn.Thread, spawn.Container} {
		var together []string
		for i := range worker.Types {
			typ := &worker.Types[i]
			switch {
			case typ.Name == "fault_injection" || typ.NeedsParams() || refusedIn(typ, mode) != "" || !canRunHere(t, typ.Name):
			case slices.Contains(realTime, typ.Name): // starve strace, if there are more of them
				t.Run(mode+"/"+typ.Name, func(t *testing.T) { countClockReads(t, mode, typ.Name) })
			default:
				together = append(together, typ.Name)
			}
		}
		t.Run(mode+"/others", func(t *testing.T) { countClockReads(t, mode, together...) })
	}
}

// needVDSOClock skips where no program reads the clock without a system call.
func needVDSOClock(t *testing.T) {
	t.Helper()
	const path = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSpace(string(source))
	if !slices.Contains([]string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}, name) {
		t.Skipf("the vDSO makes system calls for clock source %s; try: echo tsc >%s", name, path)
	}
}

// canRunHere tells whether what a type needs of the machine is there: cgroups that
// can be made.
func canRunHere(t *testing.T, name string) bool {
	t.Helper()
	in, err := worker.Parse(spec.Work{Type: name})
	if err != nil {
		t.Fatal(err)
	}
	if in.Type.Resource != worker.CgroupLeaves && in.Type.Resource != worker.CgroupTarget {
		return true
	}
	h, err := spawn.Spawn(spawn.Workload{Groups: []spec.Group{{Workers: in.GroupSize(), Work: spec.Work{Type: name}}}})
	if err != nil {
		t.Logf("%s is left out: %v", name, err)
		return false
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	return true
}

// clockCall is a system call for time in the output of strace -f -o.
var clockCall = regexp.MustCompile(`(?m)^(\d+) +(clock_gettime|gettimeofday|time)\((\w*)`)

// countClockReads runs types under strace, a set of workers each, and looks at
// what each of them asked the kernel.
func countClockReads(t *testing.T, mode string, types ...string) {
	var b strings.Builder
	pcomm := ""
	if mode == spawn.Container {
		mode, pcomm = spawn.Fork, "pcomm: box, "
	}
	fmt.Fprintf(&b, "version: 1\nduration: 1s\nclone_mode: %s\ngroups:\n", mode)
	for _, name := range types {
		in, err := worker.Parse(spec.Work{Type: name})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  - {name: %s, workers: %d, %swork: %s}\n", name, in.GroupSize(), pcomm, name)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	whole := program
	program = "strace"
	r := guestinit(t, b.String(), "-f", "-qq", "--seccomp-bpf", "-e", "trace=clock_gettime,gettimeofday,time", "-e", "signal=none",
		"-o", trace, whole, "local", "--json", "-", "-")
	program = whole
	r.want(t, 0)
	out, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	workers := map[int]*report.Worker{}
	rep := r.report(t)
	for i := range rep.Workers {
		workers[rep.Workers[i].TID] = &rep.Workers[i]
	}
	cpuClock, others := map[int]int{}, map[string]int{}
	for _, m := range clockCall.FindAllStringSubmatch(string(out), -1) {
		tid, err := strconv.Atoi(m[1])
		w := workers[tid]
		switch {
		case err != nil || w == nil: // the spawner, or a worker's child
		case m[3] == "CLOCK_THREAD_CPUTIME_ID":
			cpuClock[tid]++
		default:
			others[fmt.Sprintf("%s: %s(%s)", w.WorkType, m[2], m[3])]++
		}
	}
	if len(others) > 0 {
		t.Errorf("system calls for time: %v", others)
	}
	for tid, w := range workers {
		// None at all would mean that strace saw nothing of the worker.
		if n := cpuClock[tid]; n < 1 || n > maxCPUClockReads {
			t.Errorf("%s worker %d read its CPU clock %d times in %d passes, want 1 to %d", w.WorkType, w.Index, n, w.Iterations, maxCPUClockReads)
		}
		if w.Iterations == 0 && len(types) == 1 {
			t.Errorf("%s worker %d made no pass under strace", w.WorkType, w.Index)
		}
	}
}
