package guest

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestGCLimit(t *testing.T) {
	for _, tt := range []struct {
		total, unit uint64
		want        int64
	}{
		{512 << 20, 1, 128 << 20},
		{512 << 20, 0, 128 << 20},
		{128 << 10, 4096, 128 << 20},
		{1 << 52, 1, 1 << 40},
	} {
		if got := gcLimit(tt.total, tt.unit); got != tt.want {
			t.Errorf("%d units of %d: %d, want %d", tt.total, tt.unit, got, tt.want)
		}
	}
}

// The collector is off until the limit is reached, and the limit is a real one.
func TestSetGC(t *testing.T) {
	limit := debug.SetMemoryLimit(-1)
	percent := debug.SetGCPercent(100)
	defer debug.SetMemoryLimit(limit)
	defer debug.SetGCPercent(percent)
	setGC()
	if got := debug.SetMemoryLimit(-1); got <= 0 || got == math.MaxInt64 {
		t.Errorf("memory limit %d", got)
	}
	if got := debug.SetGCPercent(100); got != -1 {
		t.Errorf("GC percent %d, want -1", got)
	}
}
