package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Cgroup is a cgroup v2 directory that the run makes and removes. Its keys are
// the kernel's file names; what is absent is left as the kernel made it. A cgroup
// holds either groups or cgroups: the kernel keeps processes in leaves.
type Cgroup struct {
	Name       string    `json:"name"` // of the directory; ops name nested ones as "outer/inner"
	Cpuset     *Cpuset   `json:"cpuset,omitempty"`
	Mems       CPUList   `json:"cpuset.mems,omitempty"`
	CPUMax     *CPUMax   `json:"cpu.max,omitempty"`
	CPUWeight  int       `json:"cpu.weight,omitempty"` // 1 to 10000
	CPUIdle    bool      `json:"cpu.idle,omitempty"`
	UclampMin  *Percent  `json:"cpu.uclamp.min,omitempty"`
	UclampMax  *Percent  `json:"cpu.uclamp.max,omitempty"`
	MemoryMax  *Bytes    `json:"memory.max,omitempty"`
	MemoryHigh *Bytes    `json:"memory.high,omitempty"`
	MemoryLow  *Bytes    `json:"memory.low,omitempty"`
	SwapMax    *Bytes    `json:"memory.swap.max,omitempty"`
	IOWeight   int       `json:"io.weight,omitempty"` // 1 to 10000
	PidsMax    *PidsMax  `json:"pids.max,omitempty"`
	Optional   bool      `json:"optional,omitempty"` // what the kernel lacks is noted, not refused
	Defaults   *Defaults `json:"defaults,omitempty"` // for all groups inside, nested ones too
	Checks     *Checks   `json:"checks,omitempty"`   // of its groups together and those of nested ones; win over those around it
	Groups     []Group   `json:"groups,omitempty"`
	Cgroups    []Cgroup  `json:"cgroups,omitempty"`
}

// Defaults is what the groups of a cgroup have that do not set it themselves. Its
// fields mean what those of Group mean.
type Defaults struct {
	Affinity  *Affinity  `json:"affinity,omitempty"`
	Sched     *Sched     `json:"sched,omitempty"`
	MemPolicy *MemPolicy `json:"mem_policy,omitempty"`
	Nice      *int       `json:"nice,omitempty"`
	Comm      string     `json:"comm,omitempty"`
	Pcomm     string     `json:"pcomm,omitempty"`
	UID       *uint32    `json:"uid,omitempty"`
	GID       *uint32    `json:"gid,omitempty"`
	NUMANode  *int       `json:"numa_node,omitempty"`
}

// Ranges of cgroup limits, as the kernel has them.
const (
	MinQuotaUs       = 1000
	MaxQuotaUs       = math.MaxInt64 / 1000
	MinPeriodUs      = 1000
	MaxPeriodUs      = 1_000_000
	DefaultPeriodUs  = 100_000
	MaxWeight        = 10_000
	MaxPids          = 4 << 20
	MaxCgroupNameLen = 64
)

// CPUMax is how much CPU time a cgroup gets in every period. Its text is the
// kernel's, "QUOTA PERIOD" in microseconds or "max PERIOD".
type CPUMax struct {
	QuotaUs  int64 // MinQuotaUs or more; 0 for no limit
	PeriodUs int64 // MinPeriodUs to MaxPeriodUs
}

// ParseCPUMax reads "50000 100000", "50000", "max", or a percentage of one CPU:
// "50%", "150%". The period is 100000 where none is given.
func ParseCPUMax(s string) (CPUMax, error) {
	m := CPUMax{PeriodUs: DefaultPeriodUs}
	if strings.HasSuffix(strings.TrimSpace(s), "%") {
		p, err := ParsePercent(s)
		if err != nil {
			return CPUMax{}, err
		}
		m.QuotaUs = int64(p) * m.PeriodUs / 10_000
		if m.QuotaUs == 0 {
			m.QuotaUs = -1 // which is out of range
		}
		return m, m.check(s)
	}
	words := strings.Fields(s)
	if len(words) < 1 || len(words) > 2 {
		return CPUMax{}, cpuMaxError(s)
	}
	var err1, err2 error
	if words[0] != "max" {
		m.QuotaUs, err1 = strconv.ParseInt(words[0], 10, 64)
		if err1 == nil && m.QuotaUs == 0 {
			m.QuotaUs = -1 // which is out of range
		}
	}
	if len(words) == 2 {
		m.PeriodUs, err2 = strconv.ParseInt(words[1], 10, 64)
	}
	if err1 != nil || err2 != nil {
		return CPUMax{}, cpuMaxError(s)
	}
	return m, m.check(s)
}

func cpuMaxError(s string) error {
	return fmt.Errorf("%s is no CPU limit; write a quota and a period in microseconds, such as \"50000 100000\", max, or 50%% of one CPU", quote(s))
}

// check checks the ranges; text is what was read.
func (m CPUMax) check(text string) error {
	if m.QuotaUs != 0 && (m.QuotaUs < MinQuotaUs || m.QuotaUs > MaxQuotaUs) {
		return fmt.Errorf("quota of %s is out of range; at least %d microseconds, or max", quote(text), MinQuotaUs)
	}
	if m.PeriodUs < MinPeriodUs || m.PeriodUs > MaxPeriodUs {
		return fmt.Errorf("period of %s is out of range; %d to %d microseconds", quote(text), MinPeriodUs, MaxPeriodUs)
	}
	return nil
}

// String is the limit as the kernel reads it.
func (m CPUMax) String() string {
	if m.QuotaUs == 0 {
		return fmt.Sprintf("max %d", m.PeriodUs)
	}
	return fmt.Sprintf("%d %d", m.QuotaUs, m.PeriodUs)
}

// Share is how many CPUs the limit is worth; 0 for no limit.
func (m CPUMax) Share() float64 { return float64(m.QuotaUs) / float64(m.PeriodUs) }

// Period is the period as a duration.
func (m CPUMax) Period() time.Duration { return time.Duration(m.PeriodUs) * time.Microsecond }

// MarshalText writes the limit as String does.
func (m CPUMax) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Percent counts hundredths of a percent: 10000 is 100%.
type Percent int

// ParsePercent reads a number with at most two decimals and an optional "%":
// "12.5%". "max" is 100%.
func ParsePercent(s string) (Percent, error) {
	text := strings.TrimSpace(s)
	if text == "max" {
		return 10_000, nil
	}
	text = strings.TrimSpace(strings.TrimSuffix(text, "%"))
	whole, frac, _ := strings.Cut(text, ".")
	n, err := strconv.ParseUint(whole+(frac + "00")[:2], 10, 31)
	if err != nil || whole == "" || len(frac) > 2 || strings.ContainsAny(frac, "+-_") || whole[0] == '+' {
		return 0, fmt.Errorf("%s is no percentage; write a number with at most two decimals, such as 50%% or 12.5%%", quote(s))
	}
	return Percent(n), nil
}

// String is the percentage with as many decimals as it needs: "12.5%".
func (p Percent) String() string {
	s := fmt.Sprintf("%d.%02d", p/100, p%100)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + "%"
}

// MarshalText writes the percentage as String does.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Bytes is an amount of memory.
type Bytes uint64

// MaxBytes stands for no limit.
const MaxBytes Bytes = math.MaxUint64

// ParseBytes reads a number of bytes with an optional K, M, G or T, which count
// by 1024: "64M". "max" is no limit.
func ParseBytes(s string) (Bytes, error) {
	text := strings.TrimSpace(s)
	if text == "max" {
		return MaxBytes, nil
	}
	shift := 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte("KMGT", text[n-1]&^0x20); i >= 0 && text[n-1] > '9' {
			shift, text = 10*(i+1), text[:n-1]
		}
	}
	v, err := strconv.ParseUint(text, 10, 63)
	if err != nil || v > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%s is no amount of memory; write bytes, or such as 64M, 2G or max", quote(s))
	}
	return Bytes(v << shift), nil
}

// String is the amount in the largest unit that divides it: "64M".
func (b Bytes) String() string {
	if b == MaxBytes {
		return "max"
	}
	for i, unit := range []string{"T", "G", "M", "K"} {
		if shift := 40 - 10*i; b != 0 && b&(1<<shift-1) == 0 {
			return strconv.FormatUint(uint64(b)>>shift, 10) + unit
		}
	}
	return strconv.FormatUint(uint64(b), 10)
}

// MarshalText writes the amount as String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// PidsMax is a number of tasks; 0 stands for no limit.
type PidsMax int

// String is the number as the kernel reads it.
func (p PidsMax) String() string {
	if p == 0 {
		return "max"
	}
	return strconv.Itoa(int(p))
}

// MarshalText writes the number as String does.
func (p PidsMax) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
