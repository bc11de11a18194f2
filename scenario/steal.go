package scenario

import (
	"os"
	"strconv"
	"strings"
)

// cpuTime is CPU time of the whole machine since boot, in ticks.
type cpuTime struct{ total, stolen uint64 }

// readCPUTime reads the first line of /proc/stat; zero where there is none.
func readCPUTime() cpuTime {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTime{}
	}
	return parseCPUTime(string(b))
}

// parseCPUTime reads "cpu user nice system idle iowait irq softirq steal ...";
// what follows is part of user and nice.
func parseCPUTime(stat string) (t cpuTime) {
	line, _, _ := strings.Cut(stat, "\n")
	words := strings.Fields(line)
	const first, steal = 1, 8
	if len(words) <= steal || words[0] != "cpu" {
		return cpuTime{}
	}
	for i, word := range words[first : steal+1] {
		v, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return cpuTime{}
		}
		if t.total += v; first+i == steal {
			t.stolen = v
		}
	}
	return t
}

// stealPct is the share of the CPU time from begin to end that the host took.
func stealPct(begin, end cpuTime) float64 {
	if end.total <= begin.total || end.stolen <= begin.stolen {
		return 0
	}
	return min(100*float64(end.stolen-begin.stolen)/float64(end.total-begin.total), 100)
}
