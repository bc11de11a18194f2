// Command faultinit is guestinit as PID 1 with a run that goes wrong in the way
// that faultinit.mode= on the kernel command line names. Tests boot it.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

func main() {
	guest.Main(run, guest.Options{Version: "faultinit"})
}

func run(ctx context.Context, s *spec.Spec, env guest.Env) error {
	mode := ""
	for word := range strings.FieldsSeq(env.Cmdline.Raw) {
		if m, ok := strings.CutPrefix(word, "faultinit.mode="); ok {
			mode = m
		}
	}
	switch mode {
	case "panic": // of PID 1, where nobody recovers
		go func() { panic("PID 1 has had enough") }()
		select {}
	case "exit":
		os.Exit(3)
	case "silent":
		<-make(chan int)
	case "kernel-crash":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
			return fmt.Errorf("trigger crash: %w", err)
		}
	case "power-off":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "flood":
		line := strings.Repeat("z", 1023) + "\n"
		for range 512 {
			if _, err := os.Stdout.WriteString(line); err != nil {
				return err
			}
		}
	case "torn":
		if err := workers(env, s); err != nil {
			return err
		}
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if err := workers(env, s); err != nil {
		return err
	}
	return env.Sink.Trailer(report.Trailer{WorkerCount: s.Groups[0].Workers, Run: env.Run, Notes: env.Notes})
}

// workers sends a report for every worker of the first group.
func workers(env guest.Env, s *spec.Spec) error {
	if err := env.Sink.Header(env.Run); err != nil {
		return err
	}
	for i := range s.Groups[0].Workers {
		w := &report.Worker{TID: 100 + i, Index: i, WorkType: s.Groups[0].Work.Type, Completed: true, Iterations: 1, WallNs: 1e6, CPUsUsed: "0"}
		if err := env.Sink.Worker(w); err != nil {
			return err
		}
	}
	return nil
}
