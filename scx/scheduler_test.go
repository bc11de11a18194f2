package scx

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestWorks has a scheduler that works to the end.
func TestWorks(t *testing.T) {
	o := newKernel(t)
	t.Setenv("SCX_FAKE", "normal")
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Failed():
		t.Error("it failed")
	case <-time.After(3 * watchLook / 2):
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if r := s.Report(); r.Name != "fake" || r.State != "enabled" || r.Exit != "" {
		t.Errorf("report while it runs %+v", r)
	}
	r, err := s.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "fake" || s.Name() != "fake" || r.State != "enabled" || r.Failure != "" || r.Exit != "exit status 0" || !r.SwitchAll || r.NrRejected != 0 {
		t.Errorf("report %+v", r)
	}
	if r.Events["SCX_EV_DISPATCH_KEEP_LAST"] != 7 || len(r.Events) != 2 || r.EnableMs <= 0 || r.RanMs <= 0 {
		t.Errorf("figures %+v", r)
	}
}

// TestFailures has schedulers that fail while they schedule.
func TestFailures(t *testing.T) {
	for _, c := range []struct{ mode, kind, text, exit string }{
		{"exit", Exited, "scheduler fake exited: exit status 3: cannot go on", "exit status 3"},
		{"stall", Stalled, "scheduler fake stalled: runnable task stall: W[12] failed to run for 2.004s", "exit status 1"},
		{"quit", Ejected, "scheduler fake was ejected by the kernel: unregistered from BPF: no more", "exit status 0"},
		{"silent", Ejected, "scheduler fake was ejected by the kernel: runtime error: invalid CPU -7", "exit status 1"},
		{"linger", Ejected, "scheduler fake was ejected by the kernel: scx_bpf_error: oh no", "exit status 0"},
		{"release", Exited, "scheduler fake exited: unregistered from user space, and its program lives on", "exit status 0"},
		{"replaced", Ejected, `scheduler fake was ejected by the kernel: scheduler "fake" is in its place`, "exit status 0"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			o := newKernel(t)
			t.Setenv("SCX_FAKE", c.mode)
			s, err := Start(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-s.Failed():
			case <-time.After(10 * time.Second):
				t.Fatal("the failure was not noticed")
			}
			if err := s.Check(); err == nil || err.Error() != c.text {
				t.Errorf("Check: %v, want %s", err, c.text)
			}
			r, err := s.Stop()
			var f *Failure
			if !errors.As(err, &f) || f.Kind != c.kind || f.Error() != c.text {
				t.Fatalf("error %v, want %s of kind %s", err, c.text, c.kind)
			}
			if r.Failure != c.kind || r.Reason != f.Reason || f.Report.Failure != c.kind || r.Exit != c.exit || r.Events["SCX_EV_DISPATCH_KEEP_LAST"] != 7 {
				t.Errorf("report %+v", r)
			}
			if log := strings.Join(r.KernelLog, "\n"); strings.Contains(log, "usb") || c.mode == "stall" && !strings.Contains(log, "check_rq") {
				t.Errorf("kernel log:\n%s", log)
			}
		})
	}
}

// TestRefusals has schedulers that are never enabled.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ mode, reason string }{
		{"refused", "libbpf: invalid program (exit status 1)"},
		{"init", "runtime error: ops.init() failed (-22) (exit status 1)"},
		{"never", "it enabled no scheduler within 300ms"},
		{"cancelled", "the run ended before it was enabled: context canceled"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			o := newKernel(t)
			t.Setenv("SCX_FAKE", c.mode)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			switch c.mode {
			case "never":
				o.enableTimeout = 300 * time.Millisecond
			case "cancelled":
				t.Setenv("SCX_FAKE", "never")
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			_, err := Start(ctx, o)
			var f *Failure
			if !errors.As(err, &f) || f.Kind != Refused || f.Reason != c.reason || f.Report.Path != o.Path || f.Report.Failure != Refused {
				t.Fatalf("error %v, %+v, want reason %s", err, f, c.reason)
			}
		})
	}
}

// TestNotTried has what keeps the program from being started.
func TestNotTried(t *testing.T) {
	o := newKernel(t)
	none := o
	none.sysfs = o.sysfs + "/none"
	if _, err := Start(t.Context(), none); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_SCHED_CLASS_EXT") {
		t.Errorf("no sched_ext: %v", err)
	}
	missing := o
	missing.Path = "/nonexistent/scx"
	if _, err := Start(t.Context(), missing); err == nil || !strings.Contains(err.Error(), "/nonexistent/scx: no such file or directory") {
		t.Errorf("no program: %v", err)
	}
	(&fake{dir: o.sysfs}).put("state", stateEnabled)
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "enabled already") {
		t.Errorf("another scheduler: %v", err)
	}
}
