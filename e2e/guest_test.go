package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// realTime are the types whose workers hold the CPUs with real-time priority:
// beside them others do next to nothing.
var realTime = []string{"rt_starvation", "priority_inversion", "preempt_storm"}

// everyType is a spec with a group of every work type that a mode allows, but
// fault_injection, exec and, in fork mode, realTime.
func everyType(mode string) string {
	var b strings.Builder
	b.WriteString("version: 1\nname: every type\nduration: 2500ms\n")
	if mode == spawn.Thread {
		b.WriteString("clone_mode: thread\n")
	}
	b.WriteString("groups:\n")
	for i := range worker.Types {
		t := &worker.Types[i]
		if t.Name == "fault_injection" || t.NeedsParams() || refusedIn(t, mode) != "" || mode == spawn.Fork && slices.Contains(realTime, t.Name) {
			continue
		}
		in, err := worker.Parse(spec.Work{Type: t.Name, Params: needed[t.Name]})
		if err != nil {
			panic(err)
		}
		pcomm := ""
		if mode == spawn.Container {
			pcomm = "pcomm: box, "
		}
		fmt.Fprintf(&b, "  - {name: %s, workers: %d, %swork: {type: %s%s}}\n", t.Name, in.GroupSize(), pcomm, t.Name, extra[t.Name])
	}
	return b.String()
}

// refusedIn is why a type cannot run in a mode, empty if it can.
func refusedIn(t *worker.Type, mode string) string {
	return map[string]string{spawn.Fork: t.RefuseFork, spawn.Thread: t.RefuseThread, spawn.Container: t.RefuseContainer}[mode]
}

// Types that cannot run on their defaults alone: their parameters, as a spec has
// them and as the decoder does.
var (
	extra  = map[string]string{"sequence": ", phases: [{spin: 1ms}, {sleep: 1ms}]"}
	needed = map[string]map[string]any{"sequence": {"phases": []any{map[string]any{"spin": "1ms"}, map[string]any{"sleep": "1ms"}}}}
)

// TestEveryTypeOnEveryKernel boots each kernel and runs all work types there.
func TestEveryTypeOnEveryKernel(t *testing.T) {
	t.Parallel() // like every test that waits long for a guest that keeps one CPU busy
	path := writeSpec(t, everyType(spawn.Fork))
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			r := guestinit(t, "", "run", "--kernel", kernelDir(t, line), "--accel", "tcg", "--json", "-", path)
			r.want(t, 0)
			rep := r.report(t)
			if rep.Verdict != report.Pass || !strings.HasPrefix(rep.Run.KernelRelease, line+".") {
				t.Errorf("verdict %s on %s: %v", rep.Verdict, rep.Run.KernelRelease, rep.Failures)
			}
			if rep.Run.Link != "vhost-user-vsock" && rep.Run.Link != "vhost-vsock" || !strings.HasPrefix(rep.Run.Accelerator, "tcg,") || rep.Run.Spawner != "fifo:99" || rep.Run.DurationMs < 2500 {
				t.Errorf("run %+v", rep.Run)
			}
			for _, stage := range []string{"init", "mounts", "ready", "qemu_to_init", "qemu_to_hello"} {
				if rep.Run.BootMs[stage] <= 0 {
					t.Errorf("boot_ms has no %s: %v", stage, rep.Run.BootMs)
				}
			}
			for _, w := range rep.Workers {
				if !w.Completed || w.Schedstat.CPUNs == 0 {
					t.Errorf("%s: completed %v, schedstat %+v, %v", w.WorkType, w.Completed, w.Schedstat, w.ExitInfo)
				}
			}
			for _, g := range rep.Groups {
				if g.WorkUnits == 0 {
					t.Errorf("%s did no work", g.Name)
				}
			}
		})
	}
}

// TestModesInGuest runs the work types as threads of PID 1, and as containers.
func TestModesInGuest(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{spawn.Thread, spawn.Container} {
		t.Run(mode, func(t *testing.T) {
			r := guestinit(t, everyType(mode), "run", "--kernel", kernelDir(t, "7.2"), "--accel", "tcg", "--json", "-", "-")
			r.want(t, 0)
			for _, w := range r.report(t).Workers {
				if !w.Completed || w.Settings["cgroup"].Got == "" {
					t.Errorf("%s: completed %v, settings %v, %v", w.WorkType, w.Completed, w.Settings, w.ExitInfo)
				}
			}
		})
	}
}

// TestFaultsInGuest has workers fail in a guest in every way: all reports come,
// each with the right exit info.
func TestFaultsInGuest(t *testing.T) {
	kinds := []string{"exit", "sigkill", "sigsegv", "panic", "stack_overflow", "hang", "sigstop"}
	var b strings.Builder
	b.WriteString("version: 1\nduration: 1s\ngroups:\n  - {name: good, workers: 2, work: futex_ping_pong}\n")
	for _, kind := range kinds {
		fmt.Fprintf(&b, "  - {name: %s, workers: 1, work: {type: fault_injection, kind: %s}}\n", kind, kind)
	}
	r := guestinit(t, b.String(), "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--json", "-", "-")
	r.want(t, 1)
	rep := r.report(t)
	if rep.Verdict != report.Fail || len(rep.Workers) != 2+len(kinds) {
		t.Fatalf("verdict %s, %d workers", rep.Verdict, len(rep.Workers))
	}
	for i, want := range []report.ExitInfo{
		{Kind: report.ExitExited, Code: 3}, {Kind: report.ExitSignaled, Signal: 9}, {Kind: report.ExitSignaled, Signal: 11},
		{Kind: report.ExitPanicked, Signal: 11}, {Kind: report.ExitPanicked, Signal: 11},
		{Kind: report.ExitTimedOut, Signal: 9}, {Kind: report.ExitTimedOut, Signal: 9},
	} {
		w := rep.Workers[2+i]
		e := w.ExitInfo
		if w.Completed || !w.Partial || e == nil || e.Kind != want.Kind || e.Code != want.Code || e.Signal != want.Signal {
			t.Errorf("%s: completed %v, partial %v, %+v", kinds[i], w.Completed, w.Partial, e)
			continue
		}
		if stack := strings.Join(e.Stack, "\n"); (want.Signal == 11) != strings.Contains(stack, "fault_unsafe.go:") {
			t.Errorf("%s: the stack is %q", kinds[i], stack)
		}
	}
	if good := rep.Groups[0]; good.Completed != 2 || good.Iterations == 0 {
		t.Errorf("the others: %+v", good)
	}
}

// TestSpecOverTheLink sends a spec that is too long for the command line.
func TestSpecOverTheLink(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nduration: 200ms\ngroups:\n")
	for i := range 150 {
		fmt.Fprintf(&b, "  - {name: \"group %d %x\", workers: 1, work: {type: timer_latency, interval: %dms}}\n", i, i*i*7919, 10+i)
	}
	r := guestinit(t, "", "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--json", "-", writeSpec(t, b.String()))
	r.want(t, 0)
	if rep := r.report(t); len(rep.Groups) != 150 || len(rep.Workers) != 150 {
		t.Errorf("%d groups, %d workers", len(rep.Groups), len(rep.Workers))
	}
}

// TestSamples asks for raw samples from a guest.
func TestSamples(t *testing.T) {
	const text = "version: 1\nduration: 500ms\ngroups: [{workers: 1, work: {type: timer_latency, interval: 1ms}}]\n"
	r := guestinit(t, text, "run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--samples", "--json", "-", "-")
	r.want(t, 0)
	l := r.report(t).Workers[0].TimerLatency
	if l == nil || len(l.Samples) != int(l.Count) || l.Count == 0 || len(l.Buckets) == 0 {
		t.Errorf("timer latency %+v", l)
	}
}
