package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/guestinit/guestinit/qemu"
)

// parsed makes a flag's value of what parse reads.
func parsed[T any](to *T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = v
		}
		return err
	}
}

// parseMemory reads a size: a number of MiB, or one with M or G.
func parseMemory(s string) (mib int, err error) {
	number, unit := strings.ToUpper(s), 1
	if n, ok := strings.CutSuffix(number, "G"); ok {
		number, unit = n, 1024
	} else if n, ok := strings.CutSuffix(number, "M"); ok {
		number = n
	}
	n, err := strconv.Atoi(number)
	switch {
	case err != nil:
		return 0, fmt.Errorf("no size; write MiB or use M or G: 512, 512M, 2G")
	case n < 0 || n > qemu.MaxMemoryMiB/unit || n*unit < qemu.MinMemoryMiB:
		return 0, fmt.Errorf("outside %dM to %dG", qemu.MinMemoryMiB, qemu.MaxMemoryMiB/1024)
	}
	return n * unit, nil
}

func parseCPUs(s string) (n int, err error) {
	if n, err = strconv.Atoi(s); err != nil || n < 1 || n > qemu.MaxCPUs {
		return 0, fmt.Errorf("no number from 1 to %d", qemu.MaxCPUs)
	}
	return n, nil
}

func parseTimeout(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("no duration above 0, such as 90s or 5m")
	}
	return d, nil
}
