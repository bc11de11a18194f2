package scenario

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/topology"
)

// describeMachine fills in what the running kernel tells of itself. What it
// does not tell stays empty.
func describeMachine(run *report.Run) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		run.KernelRelease = unix.ByteSliceToString(u.Release[:])
		run.Machine = unix.ByteSliceToString(u.Machine[:])
	}
	run.KernelCmdline = readLine("/proc/cmdline")
	run.Clocksource = clocksource()
	run.CPUs = listLen("/sys/devices/system/cpu/online", runtime.NumCPU())
	run.NUMANodes = listLen("/sys/devices/system/node/online", 1)
}

// describeTopology fills in how the CPUs share nodes, caches and cores.
func describeTopology(run *report.Run) error {
	t, err := topology.Read()
	if err != nil {
		return err
	}
	d := new(report.Topology)
	for _, n := range t.Nodes {
		d.Nodes = append(d.Nodes, report.TopologyNode{
			ID: n.ID, CPUs: spec.CPUList(n.CPUs).String(), MemoryMiB: int(n.MemKiB / 1024), Distances: n.Distances})
	}
	for _, l := range t.LLCs {
		d.LLCs = append(d.LLCs, spec.CPUList(l.CPUs).String())
	}
	for _, c := range t.Cores {
		d.Cores = append(d.Cores, spec.CPUList(c.CPUs).String())
	}
	run.Topology = d
	return nil
}

// readLine is the content of a small file of the kernel's, without the end of
// line.
func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// listLen is how many numbers a list file holds, or otherwise where it cannot
// be read.
func listLen(path string, otherwise int) int {
	list, err := spec.ParseCPUList(readLine(path))
	if err != nil || len(list) == 0 {
		return otherwise
	}
	return len(list)
}

// clocksource is the kernel's current clock source.
func clocksource() string {
	return readLine("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}
