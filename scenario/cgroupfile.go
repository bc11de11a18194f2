package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spec"
)

// setting is one file of a cgroup and what is to be written to it.
type setting struct {
	file, value string
}

// controllerOf is the controller that a file of a cgroup belongs to.
func controllerOf(file string) string {
	name, _, _ := strings.Cut(file, ".")
	return name
}

// kernelOption is what a kernel without the file was built without.
func kernelOption(file string) string {
	switch {
	case strings.HasPrefix(file, "cpuset."):
		return "CONFIG_CPUSETS"
	case file == "cpu.max":
		return "CONFIG_CFS_BANDWIDTH"
	case strings.HasPrefix(file, "cpu.uclamp."):
		return "CONFIG_UCLAMP_TASK_GROUP"
	case strings.HasPrefix(file, "cpu."):
		return "CONFIG_FAIR_GROUP_SCHED"
	case file == "memory.swap.max":
		return "CONFIG_SWAP"
	case strings.HasPrefix(file, "memory."):
		return "CONFIG_MEMCG"
	case strings.HasPrefix(file, "io."):
		return "CONFIG_BLK_CGROUP_IOCOST"
	}
	return "CONFIG_CGROUP_PIDS"
}

// settings lists the files of a cgroup that the spec sets, but for the cpuset.
func settings(c *spec.Cgroup) []setting {
	var list []setting
	add := func(set bool, file string, value any) {
		if set {
			list = append(list, setting{file, fmt.Sprint(value)})
		}
	}
	add(len(c.Mems) > 0, "cpuset.mems", c.Mems)
	if c.CPUMax != nil {
		add(true, "cpu.max", *c.CPUMax)
	}
	add(c.CPUWeight != 0, "cpu.weight", c.CPUWeight)
	add(c.CPUIdle, "cpu.idle", 1)
	for _, u := range []struct {
		file  string
		value *spec.Percent
	}{{"cpu.uclamp.min", c.UclampMin}, {"cpu.uclamp.max", c.UclampMax}} {
		if u.value != nil {
			add(true, u.file, strings.TrimSuffix(u.value.String(), "%"))
		}
	}
	for _, m := range []struct {
		file  string
		value *spec.Bytes
	}{{"memory.max", c.MemoryMax}, {"memory.high", c.MemoryHigh}, {"memory.low", c.MemoryLow}, {"memory.swap.max", c.SwapMax}} {
		if m.value != nil {
			add(true, m.file, *m.value)
		}
	}
	add(c.IOWeight != 0, "io.weight", "default "+strconv.Itoa(c.IOWeight))
	if c.PidsMax != nil {
		add(true, "pids.max", *c.PidsMax)
	}
	return list
}

// writeFile writes a value to a file of a cgroup.
func writeFile(dir, file, value string) error {
	f, err := os.OpenFile(dir+"/"+file, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", file, cause(err))
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %q to %s: %w", strings.TrimSpace(value), file, cause(err))
	}
	return nil
}

// cause strips the path that an error of a file repeats.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// fields reads the words of a small file of a cgroup.
func fields(dir, file string) ([]string, error) {
	text, err := os.ReadFile(dir + "/" + file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, cause(err))
	}
	return strings.Fields(string(text)), nil
}

// settleTime bounds the wait for a cgroup to freeze or to empty.
const settleTime = 2 * time.Second

// awaitEvent waits until cgroup.events has a line.
func awaitEvent(dir, line string) error {
	f, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		return err
	}
	defer f.Close()
	deadline := time.Now().Add(settleTime)
	for {
		events := make([]byte, 256)
		n, _ := f.ReadAt(events, 0)
		if strings.Contains(string(events[:n]), line) {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("cgroup.events has no %q after %v", line, settleTime)
		}
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll cgroup.events: %w", err)
		}
	}
}
