package scx

import (
	"reflect"
	"strings"
	"testing"
)

func TestReasonInLog(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  reason
		ok    bool
	}{
		{[]string{`sched_ext: BPF scheduler "a" enabled`}, reason{}, false},
		{[]string{`sched_ext: BPF scheduler "a" disabled (unregistered from user space)`}, reason{"unregistered from user space", ""}, true},
		{[]string{
			`sched_ext: BPF scheduler "a: b" enabled`,
			`sched_ext: BPF scheduler "a: b" disabled (runtime error)`,
			`sched_ext: other: not this`,
			`sched_ext: a: b: invalid dsq (0x1)`,
			`sched_ext: a: b: later`,
		}, reason{"runtime error", "invalid dsq (0x1)"}, true},
		{[]string{`BPF scheduler "a" disabled (runtime error)`}, reason{}, false},
	} {
		if got, ok := reasonInLog(c.lines); got != c.want || ok != c.ok {
			t.Errorf("%q: %+v, %v", c.lines, got, ok)
		}
	}
}

func TestReasonInOutput(t *testing.T) {
	for text, want := range map[string]reason{
		"EXIT: runnable task stall (W[1] failed (badly) to run)\n": {"runnable task stall", "W[1] failed (badly) to run"},
		"12:00:01 [INFO] EXIT: unregistered from user space\r\n":   {"unregistered from user space", ""},
		"EXIT: first (x)\nEXIT: last (y)":                          {"last", "y"},
		"nothing":                                                  {},
	} {
		if got, ok := reasonInOutput(text); got != want || ok != (want != reason{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
}

func TestParseEvents(t *testing.T) {
	got := parseEvents("SCX_EV_A 1\nSCX_EV_B 18446744073709551615\nodd\nnegative -1\n\n")
	if want := map[string]uint64{"SCX_EV_A": 1, "SCX_EV_B": 1<<64 - 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("events %v", got)
	}
	if got := parseEvents(strings.Repeat("A 1\n", 10) + strings.Repeat("", 3)); len(got) != 1 {
		t.Errorf("events %v", got)
	}
}

// FuzzKernelLog: whatever the log says, lines are bounded and a reason comes only
// from a line of sched_ext.
func FuzzKernelLog(f *testing.F) {
	f.Add("3,1,2,-;sched_ext: BPF scheduler \"a\" disabled (runtime error)\n", "3,1,2,-;sched_ext: a: msg\n")
	f.Add("3,1,2,c;  backtrace", "no semicolon")
	f.Fuzz(func(t *testing.T, a, b string) {
		var l kernelLog
		for range maxLines {
			l.add(parseLine(a))
			l.add(parseLine(b))
		}
		lines := l.all()
		if len(lines) > maxLines {
			t.Errorf("%d lines", len(lines))
		}
		r, ok := reasonInLog(lines)
		if all := strings.Join(lines, "\n"); ok && (!strings.Contains(all, "disabled (") || !strings.Contains(all, r.what) || !strings.Contains(all, r.message)) {
			t.Errorf("reason %+v of\n%s", r, all)
		}
		reasonInOutput(a + "\n" + b)
		parseEvents(a + "\n" + b)
	})
}
