package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// toolTimeout bounds one run of a tool.
const toolTimeout = time.Minute

// tool runs a program, on the CPU of the bench if pinned, and returns all that it
// prints.
func (b *bench) tool(pinned bool, args ...string) ([]byte, error) {
	if _, err := exec.LookPath(args[0]); err != nil {
		return nil, fmt.Errorf("%w: there is no %s; try: scripts/install-tools.sh %s", errNotHere, args[0], args[0])
	}
	if pinned {
		args = append([]string{"taskset", "-c", strconv.Itoa(b.cpu)}, args...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run %q: %w\n%s", args, err, out)
	}
	return out, nil
}

// cyclictest runs one measuring thread for a turn and returns its latencies in ns.
func (b *bench) cyclictest(policy ...string) ([]float64, error) {
	path := filepath.Join(b.dir, "cyclictest.json")
	args := append([]string{"cyclictest", "--quiet", "--nsecs", "--default-system", "--threads=1", "--affinity=" + strconv.Itoa(b.cpu),
		"--interval=" + strconv.Itoa(int(timerInterval/time.Microsecond)), "--loops=" + strconv.Itoa(int(b.span/turns/timerInterval)),
		"--histogram=" + strconv.Itoa(maxLatencyNs), "--json=" + path}, policy...)
	if _, err := b.tool(false, args...); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseCyclictest(text)
}

// parseCyclictest reads the histogram of the only thread, in ns. Latencies beyond
// its end are in the number of cycles alone, and taken to be at the end.
func parseCyclictest(text []byte) ([]float64, error) {
	var out struct {
		Resolution int `json:"resolution_in_ns"`
		Thread     map[string]struct {
			Histogram map[string]uint64
			Cycles    uint64
		}
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, fmt.Errorf("read cyclictest's results: %w", err)
	}
	thread, ok := out.Thread["0"]
	if !ok || out.Resolution != 1 || thread.Cycles == 0 {
		return nil, fmt.Errorf("read cyclictest's results: no cycles in ns: %.200s", text)
	}
	var all []float64
	for key, count := range thread.Histogram {
		ns, err := strconv.ParseUint(key, 10, 64)
		if err != nil || uint64(len(all))+count > thread.Cycles {
			return nil, fmt.Errorf("read cyclictest's results: %d latencies of %q ns in %d cycles: %w", count, key, thread.Cycles, err)
		}
		all = append(all, slices.Repeat([]float64{float64(ns)}, int(count))...)
	}
	return append(all, slices.Repeat([]float64{maxLatencyNs}, int(thread.Cycles)-len(all))...), nil
}

// perfPipe is the round trips per second of perf bench sched pipe.
func (b *bench) perfPipe(pinned bool, args ...string) ([]float64, error) {
	loops := 40_000 * int(b.span/time.Second)
	out, err := b.tool(pinned, append([]string{"perf", "bench", "sched", "pipe", "-l", strconv.Itoa(loops)}, args...)...)
	if err != nil {
		return nil, err
	}
	return find(out, opsPattern)
}

// stressFault is the minor page faults per second that stress-ng --fault counts.
func (b *bench) stressFault() ([]float64, error) {
	out, err := b.tool(true, "stress-ng", "--fault", "1", "--timeout", strconv.Itoa(int(b.span/time.Second)), "--metrics", "--temp-path", b.dir)
	if err != nil {
		return nil, err
	}
	return find(out, faultsPattern)
}

// hackbench is the messages per second of one sender and one receiver per group
// over pipes.
func (b *bench) hackbench(groups int) ([]float64, error) {
	const messages = 100_000
	out, err := b.tool(false, "hackbench", "--pipe", "--process", "-g", strconv.Itoa(groups), "-f", "1", "-s", "1", "-l", strconv.Itoa(messages))
	if err != nil {
		return nil, err
	}
	seconds, err := find(out, timePattern)
	if err != nil {
		return nil, err
	}
	return []float64{float64(groups*messages) / seconds[0]}, nil
}

// Where the tools say their results.
const (
	opsPattern    = `([0-9]+) ops/sec`
	faultsPattern = `([0-9.]+) minor page faults per sec`
	timePattern   = `Time: ([0-9.]+)`
)

// find is the number that the first group of a pattern matches.
func find(out []byte, pattern string) ([]float64, error) {
	m := regexp.MustCompile(pattern).FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("no %q in what the tool says:\n%s", pattern, out)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil || v <= 0 {
		return nil, fmt.Errorf("%q is no result: %v", m[1], err)
	}
	return []float64{v}, nil
}

// futexTwin runs testdata/futex.c, which is compiled the first time.
func (b *bench) futexTwin(pinned bool) ([]float64, error) {
	path := filepath.Join(b.dir, "futex")
	if _, err := os.Stat(path); err != nil {
		_, self, _, _ := runtime.Caller(0)
		source := filepath.Join(filepath.Dir(self), "testdata", "futex.c")
		if _, err := b.tool(false, "gcc", "-O2", "-static", "-o", path, source); err != nil {
			return nil, err
		}
	}
	out, err := b.tool(pinned, path, strconv.Itoa(int(b.span/time.Second)))
	if err != nil {
		return nil, err
	}
	return find(out, `([0-9.]+)`)
}

// versions is a line about kernel and tools.
func versions() string {
	words := []string{"Linux " + firstLine("uname", "-r")}
	for _, args := range [][]string{{"cyclictest", "--help"}, {"perf", "--version"}, {"stress-ng", "--version"}, {"gcc", "-dumpfullversion"}} {
		line := firstLine(args...)
		if args[0] == "gcc" {
			line = "gcc " + line
		}
		words = append(words, line)
	}
	return strings.Join(words, ", ")
}

// firstLine is the first line that a program prints, whatever its exit status.
func firstLine(args ...string) string {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return "no " + args[0]
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), " (")
	return text
}
