package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// TestMain makes the test binary serve as init of the guests that the boot
// tests start, and as the helper process of the reaper's.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		if err := worker.Register(floodType, flood); err != nil {
			panic(err)
		}
		Main(runInGuest, Options{Version: "test", Owned: func(pid int) bool { return children.owns(pid) || spawn.Owns(pid) }})
	}
	if mode := os.Getenv(helperEnv); mode != "" {
		os.Exit(helper(mode))
	}
	status := m.Run()
	if staticDir != "" {
		os.RemoveAll(staticDir)
	}
	os.Exit(status)
}

// runInGuest is the workload of the boot tests; the name in the spec says what
// becomes of it.
func runInGuest(ctx context.Context, s *spec.Spec, env Env) error {
	notes := append(env.Notes, machineFacts()...)
	env.Log("log line of the run")
	switch {
	case strings.Contains(s.Name, "name-fails"):
		return errors.New("open /nowhere: as the test wants it")
	case strings.Contains(s.Name, "name-panics"):
		var m map[string]int
		m["x"] = 1
	case strings.Contains(s.Name, "name-dies"):
		go func() { panic("in a goroutine that nobody guards") }()
		select {}
	case strings.Contains(s.Name, "name-ships"):
		return shipReport(ctx, env)
	case strings.Contains(s.Name, "name-stops"):
		<-ctx.Done()
		notes = append(notes, "told to stop")
	}
	if err := env.Sink.Header(env.Run); err != nil {
		return err
	}
	for i := range 3 {
		w := report.Worker{TID: 100 + i, Index: i, WorkType: "spin_wait", Completed: true, Iterations: uint64(1000 * i)}
		if err := env.Sink.Worker(&w); err != nil {
			return err
		}
	}
	return env.Sink.Trailer(report.Trailer{Run: env.Run, Notes: notes})
}

// machineFacts are notes that let the host see how PID 1 left its machine.
func machineFacts() []string {
	var facts []string
	for _, m := range mounts() {
		if magic, mounted := mountedOn("/" + m.target); mounted && magic == m.magic {
			facts = append(facts, "mounted "+m.target)
		}
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		facts = append(facts, fmt.Sprintf("nofile %d", lim.Cur))
	}
	facts = append(facts, EnvPID1+"="+os.Getenv(EnvPID1))
	return append(facts, orphanFact())
}

// orphanFact makes an orphan and tells whether PID 1 reaps it, beside a child
// of its own whose status stays with it.
func orphanFact() string {
	pid, err := makeOrphan()
	if err != nil {
		return fmt.Sprintf("orphan: %v", err)
	}
	if !gone(pid) {
		return "orphan left"
	}
	return "orphan reaped"
}
