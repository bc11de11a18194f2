// Command scx_fifo is a small sched_ext scheduler: one queue for all CPUs, first
// in, first out, a slice of 5 ms. Its BPF programs are assembled here and loaded
// through a Go library, so that it builds with the Go compiler alone and runs as
// one static file. The tests schedule guests with it; told to, it fails in the
// ways in which schedulers fail.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// pollInterval is how often the program looks whether the kernel has ended it.
const pollInterval = 20 * time.Millisecond

// options is the command line.
type options struct {
	schedulerOptions
	after  time.Duration
	do     string
	code   int
	linger bool
}

func main() {
	o := parse()
	code, err := run(o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "scx_fifo: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func parse() options {
	var o options
	timeout := flag.Duration("timeout", 0, "how long a task may be runnable without a CPU before the kernel ends the scheduler (0: the kernel's default)")
	flag.StringVar(&o.name, "name", "scx_fifo", "name of the scheduler")
	flag.Uint64Var(&o.flags, "flags", 0, "flags of the scheduler, SCX_OPS_*")
	flag.DurationVar(&o.after, "after", 0, "how long to schedule before -do")
	flag.StringVar(&o.do, "do", "", "what to do then: exit, stall, error, quit, or with -after 0 never, to schedule nothing at all")
	flag.IntVar(&o.code, "code", 0, "status of -do exit")
	flag.BoolVar(&o.linger, "linger", false, "live on when the kernel has ended the scheduler")
	flag.Parse()
	o.timeoutMs = uint32(*timeout / time.Millisecond)
	return o
}

// run schedules until a signal, the kernel or -do ends it.
func run(o options) (status int, err error) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if o.do == "never" {
		<-stop
		return 0, nil
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return 1, fmt.Errorf("raise limit of locked memory: %w", err)
	}
	spec, err := collection(o.schedulerOptions)
	if err != nil {
		return 1, err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			return 1, fmt.Errorf("load: %+v", verifier)
		}
		return 1, fmt.Errorf("load: %w", err)
	}
	defer coll.Close()
	l, err := link.AttachStructOps(link.StructOpsOptions{Map: coll.Maps["ops"]})
	if err != nil {
		return 1, fmt.Errorf("attach: %w", err)
	}
	defer func() {
		err = errors.Join(err, l.Close())
		if e := lastExit(coll.Maps["exit"]); e != nil {
			e.print()
		}
	}()
	fmt.Println("scx_fifo: attached")
	return schedule(o, coll, stop)
}

// schedule waits for the end.
func schedule(o options, coll *ebpf.Collection, stop <-chan os.Signal) (status int, err error) {
	var then <-chan time.Time
	if o.do != "" {
		then = time.After(o.after)
	}
	look := time.NewTicker(pollInterval)
	defer look.Stop()
	for {
		select {
		case <-stop:
			return 0, nil
		case <-then:
			mode := map[string]uint64{"stall": modeStall, "error": modeError, "quit": modeQuit}[o.do]
			if mode == modeRun {
				return o.code, nil
			}
			if err := coll.Maps["control"].Put(uint32(0), mode); err != nil {
				return 1, fmt.Errorf("tell BPF to %s: %w", o.do, err)
			}
		case <-look.C:
			if e := lastExit(coll.Maps["exit"]); e != nil && !o.linger {
				return 1, nil // run prints it
			}
		}
	}
}

// exitInfo is what the kernel told the scheduler of its end.
type exitInfo struct {
	kind              uint64
	reason, msg, dump string
}

// lastExit is nil while the scheduler runs.
func lastExit(m *ebpf.Map) *exitInfo {
	var value [exitSize]byte
	if err := m.Lookup(uint32(0), value[:]); err != nil {
		return nil
	}
	e := &exitInfo{kind: binary.NativeEndian.Uint64(value[exitKindOffset:])}
	if e.kind == 0 {
		return nil
	}
	text := func(offset, size int) string {
		b, _, _ := bytes.Cut(value[offset:offset+size], []byte{0})
		return string(b)
	}
	e.reason, e.msg, e.dump = text(exitReasonOffset, exitReasonSize), text(exitMsgOffset, exitMsgSize), text(exitDumpOffset, exitDumpSize)
	return e
}

// print writes it the way the schedulers of the kernel's tools do.
func (e *exitInfo) print() {
	const rule = "================================================================================"
	if e.dump != "" {
		fmt.Fprintf(os.Stderr, "\nDEBUG DUMP\n%s\n\n%s\n\n%s\n\n", rule, e.dump, rule)
	}
	fmt.Fprintf(os.Stderr, "EXIT: %s", e.reason)
	if e.msg != "" {
		fmt.Fprintf(os.Stderr, " (%s)", e.msg)
	}
	fmt.Fprintln(os.Stderr)
}
