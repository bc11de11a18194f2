package scenario

import "testing"

func TestSteal(t *testing.T) {
	const before = "cpu  100 0 50 800 10 0 5 35 7 0\ncpu0 1 2 3\n"
	begin := parseCPUTime(before)
	if begin != (cpuTime{1000, 35}) {
		t.Errorf("%+v", begin)
	}
	for _, tt := range []struct {
		after string
		want  float64
	}{
		{"cpu  150 0 50 825 10 0 5 60 9 0\n", 25},
		{before, 0},
		{"cpu  0 0 0 0 0 0 0 2000 0 0\n", 100}, // counters that ran backwards
		{"cpu  200 0 50 800 10 0 5 30 7 0\n", 0},
		{"cpu  1 2 3", 0},
		{"", 0},
		{"cpu 1 2 3 4 5 6 7 x 9 10", 0},
	} {
		if got := stealPct(begin, parseCPUTime(tt.after)); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.after, got, tt.want)
		}
	}
	if now := readCPUTime(); now.total == 0 {
		t.Error("/proc/stat says nothing")
	}
}
