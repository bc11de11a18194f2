package launch

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
)

func TestDiagnose(t *testing.T) {
	done := vsock.Outcome{Bye: &vsock.Bye{}, ReportComplete: true}
	panicked := qemu.Finding{Kind: qemu.Panic, Line: "Kernel panic - not syncing: Fatal exception"}
	oops := qemu.Finding{Kind: qemu.Oops, Line: "BUG: unable to handle page fault"}
	stalled := qemu.Finding{Kind: qemu.SchedExt, Line: `sched_ext: BPF scheduler "x" disabled (runnable task stall)`}
	hung := qemu.Finding{Kind: qemu.HungTask, Line: "INFO: task x blocked for more than 120 seconds."}
	silent := &Error{Class: Timeout, Msg: "the guest said nothing for 1m0s"}
	for _, tt := range []struct {
		name  string
		f     facts
		class Class // 0 for no error
		want  []string
	}{
		{"all well", facts{out: done}, 0, nil},
		{"all well, killed late", facts{out: done, killed: true}, 0, nil},
		{"a stall on the way", facts{out: done, findings: []qemu.Finding{hung}}, 0, nil},
		{"oops on the way", facts{out: done, findings: []qemu.Finding{oops}}, Crash, []string{oops.Line}},
		{"oops, then panic", facts{findings: []qemu.Finding{oops, panicked}}, Crash, []string{oops.Line, panicked.Line}},
		{"panic explains the silence", facts{cause: silent, findings: []qemu.Finding{panicked}}, Crash, []string{panicked.Line}},
		{"panic explains the torn link", facts{serveErr: vsock.ErrTorn, findings: []qemu.Finding{panicked}}, Crash, []string{panicked.Line}},
		{"a will above all", facts{cause: &Error{Class: Setup, Msg: "interrupted"}, findings: []qemu.Finding{panicked}}, Setup, []string{"interrupted"}},
		{"silence under a scheduler", facts{cause: silent, findings: []qemu.Finding{stalled}, lastLine: "x"}, Timeout, []string{silent.Msg, stalled.Line}},
		{"silence with a symptom", facts{cause: silent, findings: []qemu.Finding{hung}, lastLine: "x"}, Timeout, []string{silent.Msg, hung.Line}},
		{"silence without", facts{cause: silent, lastLine: "last words"}, Timeout, []string{silent.Msg, `"last words"`}},
		{"killed from outside", facts{exit: qemu.Exit{Code: -1, Signal: 9}, serveErr: vsock.ErrNoBye}, Setup, []string{"SIGKILL"}},
		{"QEMU aborted", facts{exit: qemu.Exit{Code: -1, Signal: 6, Stderr: "error: failed\nqemu: kvm.c:1\x1b: assertion\n"}, serveErr: vsock.ErrNoBye}, Setup,
			[]string{"QEMU crashed with SIGABRT: error: failed; qemu: kvm.c:1·: assertion"}},
		{"KVM that was insisted on aborts", facts{exit: qemu.Exit{Code: -1, Signal: 6, Stderr: "no MSR\n"}, kvmDoubt: "it crawls"}, Setup,
			[]string{"use --accel tcg", "SIGABRT: no MSR", "it crawls"}},
		{"KVM that was insisted on crawls", facts{cause: silent, kvmDoubt: "it crawls"}, Setup, []string{"use --accel tcg", silent.Msg, "it crawls"}},
		{"KVM that was insisted on works", facts{cause: silent, kvmDoubt: "it crawls", out: vsock.Outcome{Hello: &vsock.Hello{}}}, Timeout, []string{silent.Msg}},
		{"QEMU gave up", facts{exit: qemu.Exit{Code: 1, Stderr: "qemu: no\x1b such thing\n"}}, Setup, []string{"status 1", "qemu: no· such thing"}},
		{"reset", facts{exit: qemu.Exit{Shutdown: "guest-reset"}, serveErr: vsock.ErrNoBye}, Crash, []string{"reset itself"}},
		{"fatal event and no bye", facts{out: vsock.Outcome{Fatal: "mount /proc: no"}, serveErr: vsock.ErrNoBye}, Crash, []string{"mount /proc: no"}},
		{"no link, words on the console", facts{serveErr: vsock.ErrNoBye, findings: []qemu.Finding{
			{Kind: qemu.InitFatal, Line: "guestinit: fatal: image: truncated"}, {Kind: qemu.InitDone, Line: "guestinit: done status=5"},
		}}, Setup, []string{"the guest gave up: image: truncated"}},
		{"no link, words cut short", facts{serveErr: vsock.ErrNoBye, findings: []qemu.Finding{{Kind: qemu.InitFatal, Line: "guestinit: fatal: mounts"}}}, Crash, []string{"gave up: mounts"}},
		{"a bye of an unknown status", facts{out: vsock.Outcome{Bye: &vsock.Bye{Status: 77}, Fatal: "why"}}, Crash, []string{"why"}},
		{"report that lies", facts{out: done, reportErr: report.ErrCorrupt}, Crash, []string{"corrupt"}},
		{"flood", facts{serveErr: fmt.Errorf("1 events: %w", vsock.ErrFlood), killed: true}, Crash, []string{"broke the host link", "flood"}},
		{"damaged image", facts{findings: []qemu.Finding{
			{Kind: qemu.UnpackFailed, Line: "Initramfs unpacking failed: junk"}, {Kind: qemu.NoInit, Line: "Kernel panic - not syncing: No working init found."},
		}}, Crash, []string{"unpacking failed: junk", "No working init"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := diagnose(tt.f)
			if tt.class == 0 {
				if e != nil {
					t.Fatalf("got %v", e)
				}
				return
			}
			if e == nil || e.Class != tt.class {
				t.Fatalf("got %v, want class %v", e, tt.class)
			}
			for _, want := range tt.want {
				if !strings.Contains(e.Error(), want) {
					t.Errorf("%q lacks %q", e, want)
				}
			}
		})
	}
	if silent.Msg != "the guest said nothing for 1m0s" {
		t.Errorf("the cause was changed: %q", silent.Msg)
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"Attempted to kill init! exitcode=0x00000300", " with status 3"},
		{"Attempted to kill init! exitcode=0x0000000b ", " by SIGSEGV"},
		{"Attempted to kill init! exitcode=0x00000009 more", " by SIGKILL"},
		{"Attempted to kill init! exitcode=0xzz", ""},
		{"Attempted to kill init!", ""},
	} {
		if got := exitCode(tt.line); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		rep  *report.Report
		want int
	}{
		{nil, &report.Report{Verdict: report.Pass}, 0},
		{nil, &report.Report{Verdict: report.Skip}, 0},
		{nil, &report.Report{Verdict: report.Fail}, 1},
		{nil, &report.Report{Verdict: report.Inconclusive}, 6},
		{&Error{Class: Timeout}, &report.Report{Verdict: report.Inconclusive}, 4},
		{nil, nil, 0}, // a dry run
		{&Error{Class: Usage}, nil, 2},
		{fmt.Errorf("around: %w", &Error{Class: Crash}), &report.Report{Verdict: report.Fail}, 3},
		{&Error{Class: Timeout}, nil, 4},
		{errors.New("something else"), nil, 5},
	} {
		if got := ExitStatus(tt.err, tt.rep); got != tt.want {
			t.Errorf("%v, %v: got %d, want %d", tt.err, tt.rep, got, tt.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain ünïcode", "plain ünïcode"},
		{"a\tb\r\nc\rd\n", "a b\nc·d\n"},
		{"\x1b]0;title\x07", "·]0;title·"},
		{"\u009b31m\u202egnp", "·31m·gnp"},
		{"bad \xff utf-8", "bad \ufffd utf-8"},
	} {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{" one \r\n", "one"},
		{"one\n\n\ttwo\x1b\nthree", "one; two·; three"},
		{strings.Repeat("ü", lineMax+1), strings.Repeat("ü", lineMax) + "…"},
	} {
		if got := oneLine(tt.in); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestKernelLine(t *testing.T) {
	json := []byte(`{"version":1,"groups":[]}`)
	line, inline, err := kernelLine{link: "serial", spec: json, fallback: "link", user: `quiet=0 x="a b"`}.build()
	if err != nil || !inline || !strings.HasSuffix(line, ` quiet=0 x="a b"`) {
		t.Fatalf("%q, inline %v, %v", line, inline, err)
	}
	parsed, err := cmdline.Parse(line)
	if err != nil || len(parsed.Warnings) > 0 || parsed.Link != "serial" || parsed.Deadline != 0 {
		t.Errorf("the guest reads %+v, %v", parsed, err)
	}
	if got, err := cmdline.DecodeSpec(parsed.Spec); err != nil || string(got) != string(json) {
		t.Errorf("the guest's spec is %q, %v", got, err)
	}
	line, inline, err = kernelLine{link: "serial", deadline: 90 * time.Second, spec: json, fallback: "link", user: strings.Repeat("x", 1900)}.build()
	if err != nil || inline || !strings.Contains(line, " guestinit.spec=link ") || !strings.Contains(line, "guestinit.deadline=1m30s") {
		t.Errorf("%q, inline %v, %v", line, inline, err)
	}
	if line, _, err = (kernelLine{link: "none"}).build(); err != nil || strings.Contains(line, "guestinit.spec") {
		t.Errorf("without a spec: %q, %v", line, err)
	}
}

func TestGuestDeadline(t *testing.T) {
	for _, tt := range []struct{ timeout, want time.Duration }{
		{0, 0},
		{time.Second, time.Second},
		{4 * time.Second, 3 * time.Second},
		{20 * time.Second, 15 * time.Second},
		{time.Hour, time.Hour - 10*time.Second},
	} {
		if got := guestDeadline(tt.timeout); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.timeout, got, tt.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	s := &spec.Spec{Groups: []spec.Group{
		{Workers: 9000, Affinity: &spec.Affinity{Exact: spec.CPUList{0, 3}}},
		{Workers: 1, Affinity: &spec.Affinity{RandomSubset: &spec.RandomSubset{From: spec.CPUList{5}, Count: 1}}},
	}}
	if n := defaultCPUs(s); n != 6 {
		t.Errorf("%d CPUs, want 6", n)
	}
	if n := defaultMemory(s); n != 512+8001/4 {
		t.Errorf("%d MiB", n)
	}
	if c, m := defaultCPUs(nil), defaultMemory(nil); c != 2 || m != 512 {
		t.Errorf("without a spec %d CPUs, %d MiB", c, m)
	}
}

// The CPUs that cgroups and operations name count too.
func TestNamedCPUs(t *testing.T) {
	list := func(cpus ...int) *spec.Cpuset { return &spec.Cpuset{Exact: cpus} }
	for want, s := range map[int]*spec.Spec{
		4: {Cgroups: []spec.Cgroup{{Cpuset: list(1, 3)}}},
		6: {Steps: []spec.Step{{Ops: []spec.Op{{SetCpuset: &spec.SetCpuset{Cpuset: list(5)}}}}}},
		8: {Steps: []spec.Step{{Ops: []spec.Op{{SetAffinity: &spec.SetAffinity{Affinity: &spec.Affinity{Exact: spec.CPUList{7}}}}}}}},
		2: {Backdrop: &spec.Backdrop{Cgroups: []spec.Cgroup{{Cpuset: list(0)}}}},
	} {
		if n := defaultCPUs(s); n != want {
			t.Errorf("%d CPUs, want %d", n, want)
		}
	}
}
