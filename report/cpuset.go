package report

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// maxCPU bounds CPU numbers: the kernel's own NR_CPUS limit on the largest
// architecture.
const maxCPU = 8192

// cpuSet is a set of CPUs, for the union of what workers ran on.
type cpuSet [maxCPU / 64]uint64

// add adds a CPU list as the kernel writes it, "0-3,8"; empty is the empty set.
func (s *cpuSet) add(list string) error {
	if list == "" {
		return nil
	}
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		lo, err := strconv.ParseUint(from, 10, 16)
		hi := lo
		if err == nil && isRange {
			hi, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || lo > hi || hi >= maxCPU {
			return fmt.Errorf("%q is not a CPU list", list)
		}
		for cpu := lo; cpu <= hi; cpu++ {
			s[cpu/64] |= 1 << (cpu % 64)
		}
	}
	return nil
}

func (s *cpuSet) has(cpu int) bool { return cpu < maxCPU && s[cpu/64]&(1<<(cpu%64)) != 0 }

// String is the set as the kernel writes it.
func (s *cpuSet) String() string {
	var b strings.Builder
	for cpu := s.nextSet(0); cpu < maxCPU; {
		end := cpu
		for s.has(end + 1) {
			end++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(cpu))
		if end > cpu {
			b.WriteString("-" + strconv.Itoa(end))
		}
		cpu = s.nextSet(end + 1)
	}
	return b.String()
}

// nextSet is the least CPU of the set that is at least from, or maxCPU.
func (s *cpuSet) nextSet(from int) int {
	for cpu := from; cpu < maxCPU; cpu = (cpu/64 + 1) * 64 {
		if word := s[cpu/64] >> (cpu % 64); word != 0 {
			return cpu + bits.TrailingZeros64(word)
		}
	}
	return maxCPU
}
