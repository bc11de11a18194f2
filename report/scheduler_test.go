package report

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func stalledReport() *Report {
	r := sampleReport()
	r.Run.Scheduler = &Scheduler{
		Name: "scx_x", Path: "/bin/scx_x", Args: []string{"-v"}, State: "disabled", Failure: "stalled",
		Reason: "runnable task stall: W[1] failed to run for 2.0s", Exit: "exit status 1", EnableMs: 410, RanMs: 2500,
		SwitchAll: true, NrRejected: 2, Events: map[string]uint64{"SCX_EV_A": 3},
		KernelLog: []string{"sched_ext: BPF scheduler \"scx_x\" disabled (runnable task stall)"},
		Output:    strings.Repeat("dump\n", 20) + "EXIT: \x1b[31mrunnable task stall\n",
	}
	return r
}

func TestSchedulerRoundTrip(t *testing.T) {
	want := stalledReport()
	got, err := Decode(bytes.NewReader(encode(t, want)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Run.Scheduler, want.Run.Scheduler) {
		t.Errorf("got %+v", got.Run.Scheduler)
	}
}

func TestSchedulerLimits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Scheduler)
		want   error
	}{
		"output":   {func(s *Scheduler) { s.Output = strings.Repeat("x", 65<<10) }, ErrLimit},
		"log":      {func(s *Scheduler) { s.KernelLog = []string{strings.Repeat("x", 65<<10)} }, ErrLimit},
		"args":     {func(s *Scheduler) { s.Args = make([]string, 5000) }, ErrLimit},
		"event":    {func(s *Scheduler) { s.Events = map[string]uint64{strings.Repeat("x", 65<<10): 1} }, ErrLimit},
		"negative": {func(s *Scheduler) { s.RanMs = -1 }, ErrCorrupt},
	} {
		r := stalledReport()
		c.change(r.Run.Scheduler)
		if _, err := Decode(bytes.NewReader(encode(t, r)), Limits{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestSchedulerTable(t *testing.T) {
	table := func(r *Report) string {
		var b bytes.Buffer
		if err := WriteTable(&b, r, 100); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	text := table(stalledReport())
	for _, want := range []string{
		"sched    sched_ext scx_x, all normal tasks, enabled in 410ms, ran 2.50s, stalled",
		"KERNEL LOG OF THE SCHEDULER", "disabled (runnable task stall)", "(11 lines before are in the JSON report)", "runnable task stall",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("an escape sequence came through")
	}
	r := stalledReport()
	*r.Run.Scheduler = Scheduler{Path: "/bin/scx_x", Failure: "refused"}
	if text := table(r); !strings.Contains(text, "sched_ext /bin/scx_x, never enabled, refused") {
		t.Errorf("refused:\n%s", text)
	}
	r.Run.Scheduler = nil
	if text := table(r); strings.Contains(text, "sched_ext") {
		t.Errorf("none:\n%s", text)
	}
}
