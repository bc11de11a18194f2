package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxCPU is one more than the highest CPU or NUMA node number of a CPUList.
const MaxCPU = 8192

// CPUList is a set of CPUs or NUMA nodes: ascending, none twice. In YAML and
// JSON it is a string as the kernel writes it, "0-3,8".
type CPUList []int

// ParseCPUList reads a list in the kernel's syntax: numbers and ranges between
// commas, a range with an optional stride of USED/GROUP ("0-31:2/8": the first 2
// of every 8). An empty string is the empty set. Errors name the part at fault.
func ParseCPUList(s string) (CPUList, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var set [MaxCPU / 64]uint64
	for part := range strings.SplitSeq(s, ",") {
		if err := addPart(&set, strings.TrimSpace(part)); err != nil {
			where := ""
			if part != s {
				where = " in " + quote(s)
			}
			return nil, fmt.Errorf("%s%s %w", quote(part), where, err)
		}
	}
	var list CPUList
	for cpu := range MaxCPU {
		if set[cpu/64]&(1<<(cpu%64)) != 0 {
			list = append(list, cpu)
		}
	}
	return list, nil
}

// addPart adds one number or range to set.
func addPart(set *[MaxCPU / 64]uint64, part string) error {
	span, stride, hasStride := strings.Cut(part, ":")
	from, to, isRange := strings.Cut(span, "-")
	lo, err := parseCPU(from)
	if err != nil {
		return err
	}
	hi, used, group := lo, 1, 1
	if isRange {
		if hi, err = parseCPU(to); err != nil {
			return err
		}
	}
	if lo > hi {
		return fmt.Errorf("runs backwards; write %d-%d", hi, lo)
	}
	if hasStride {
		if used, group, err = parseStride(stride, isRange); err != nil {
			return err
		}
	}
	for cpu := lo; cpu <= hi; cpu++ {
		if (cpu-lo)%group < used {
			set[cpu/64] |= 1 << (cpu % 64)
		}
	}
	return nil
}

func parseCPU(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("is no number or range; write it as 0-3,8")
	}
	if n >= MaxCPU {
		return 0, fmt.Errorf("is out of range; the highest number is %d", MaxCPU-1)
	}
	return int(n), nil
}

// parseStride reads USED/GROUP.
func parseStride(s string, isRange bool) (used, group int, err error) {
	u, g, ok := strings.Cut(s, "/")
	used, err1 := parseCPU(u)
	group, err2 := parseCPU(g)
	if !ok || !isRange || err1 != nil || err2 != nil || used < 1 || group < used {
		return 0, 0, fmt.Errorf("has no stride as the kernel writes it; write 0-31:2/8 for the first 2 of every 8")
	}
	return used, group, nil
}

// String is the list as the kernel writes it, without strides; "" if it is empty.
func (l CPUList) String() string {
	var b strings.Builder
	for i := 0; i < len(l); {
		j := i
		for j+1 < len(l) && l[j+1] == l[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(l[i]))
		if j > i {
			b.WriteString("-" + strconv.Itoa(l[j]))
		}
		i = j + 1
	}
	return b.String()
}

// Contains reports whether n is in the list.
func (l CPUList) Contains(n int) bool {
	_, found := slices.BinarySearch(l, n)
	return found
}

// MarshalText writes the list as String does.
func (l CPUList) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the list as ParseCPUList does.
func (l *CPUList) UnmarshalText(b []byte) error {
	v, err := ParseCPUList(string(b))
	if err == nil {
		*l = v
	}
	return err
}
