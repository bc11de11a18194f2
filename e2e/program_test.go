package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/report"
)

// TestProgramsInGuest runs dynamically linked programs of this machine in a guest
// beside a built-in type: one to its end, one until it is told to stop, one that
// fails, and one that leaves a process behind in a session of its own.
func TestProgramsInGuest(t *testing.T) {
	const text = `
version: 1
duration: 4s
groups:
  - {name: spinner, workers: 1, work: spin_wait, nice: 19}
  - {name: compress, workers: 1, comm: squeeze, work: {type: exec, argv: [zstd, -b1, -i1, /init]}}
  - {name: fails, workers: 1, work: {type: exec, argv: [sh, -c, "cat /proc/self/comm; echo no >&2; exit 7"]}}
  - {name: leaves, workers: 1, work: {type: exec, argv: [sh, -c, "setsid sh -c 'trap : TERM; sleep 1h; sleep 1h' & exit 0"]}}
  - {name: waits, workers: 1, uid: 1000, sched: {policy: fifo, priority: 10}, work: {type: exec, argv: [sleep, 1h]}}
`
	var files []string
	for _, name := range []string{"cat", "setsid"} { // what the scripts call
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, "--file", path)
	}
	r := guestinit(t, text, append([]string{"run", "--kernel", kernelDir(t, "6.12"), "--accel", "tcg", "--json", "-", "-"}, files...)...)
	r.want(t, 1)
	rep := r.report(t)
	if len(rep.Workers) != 5 {
		t.Fatalf("%d reports", len(rep.Workers))
	}
	if out := rep.Workers[1].Stdout; !rep.Workers[1].Completed || out == nil || !strings.Contains(out.Head, "MB/s") || rep.Workers[1].Settings["comm"].Got != "squeeze" {
		t.Errorf("zstd: %+v, %+v, %+v, %+v", rep.Workers[1].ExitInfo, out, rep.Workers[1].Stderr, rep.Workers[1].Settings["comm"])
	}
	fails := &rep.Workers[2]
	if e := fails.ExitInfo; fails.Completed || e == nil || e.Kind != report.ExitExited || e.Code != 7 || fails.Stdout.Head != "cat\n" || fails.Stderr.Head != "no\n" {
		t.Errorf("the program that fails: %+v, %+v, %+v", e, fails.Stdout, fails.Stderr)
	}
	for _, i := range []int{0, 3, 4} {
		if w := &rep.Workers[i]; !w.Completed || w.WorkUnits == 0 || w.CPUNs == 0 {
			t.Errorf("%s: completed %v, %+v, %d units of work, %d ns", rep.Groups[i].Name, w.Completed, w.ExitInfo, w.WorkUnits, w.CPUNs)
		}
	}
	for name, want := range map[string]string{"policy": "fifo:10", "uid": "1000"} {
		if s := rep.Workers[4].Settings[name]; s.Got != want {
			t.Errorf("%s of the program: %+v", name, s)
		}
	}
	if len(rep.Notes) > 0 {
		t.Errorf("notes %q", rep.Notes)
	}
}

// TestProgramThatIsNowhere is an error before anything boots.
func TestProgramThatIsNowhere(t *testing.T) {
	r := guestinit(t, "version: 1\ngroups: [{workers: 1, work: {type: exec, argv: [gi-nowhere]}}]\n", "run", "--dry-run", "-")
	r.want(t, 2, `groups[0].work.argv[0]: there is no program "gi-nowhere"`, "--file SRC:/usr/local/bin/gi-nowhere")
}
