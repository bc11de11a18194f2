package launch

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/spec"
)

// Options is one run. The zero value of a field means its default.
type Options struct {
	Spec *spec.Spec // required, except for DryRun

	Kernel    string           // as kernel.Find takes it
	Modules   string           // as kernel.Find takes it
	Init      string           // static binary that becomes /init; default this executable
	Files     []initramfs.File // further files of the image
	Append    string           // further kernel command line, after ours
	MemoryMiB int              // default 512, more for thousands of workers
	CPUs      int              // default 2, more if the spec names higher CPUs
	Topology  qemu.Topology    // of the CPUs, zero for none in particular; excludes CPUs
	Accel     string           // auto (default), kvm, tcg, tcg,thread=single, tcg,thread=multi
	Link      string           // auto (default), vsock, serial
	QEMU      string           // default qemu-system-x86_64 from $PATH

	Timeout     time.Duration // of the whole run; default: boot, spec deadline and 30s together
	BootTimeout time.Duration // from QEMU's start to the guest's hello, per attempt; default 60s, 20s under KVM
	Silence     time.Duration // longest time without a frame of the guest after its hello; default 60s and 20ms a worker

	ConsoleFile string    // gets the guest's console
	Console     io.Writer // gets it too; may block or fail without harm
	Keep        bool      // keep image, spec, console, report and command in a directory
	DryRun      bool      // boot nothing: keep the image and return the command
	Samples     bool      // keep raw samples in the report

	Progress func(Event) // called from one goroutine at a time; must not block for long
}

// Deadlines that are not the user's to choose.
const (
	// kvmFirstByte is how long a trusted KVM may leave the console silent.
	kvmFirstByte = 5 * time.Second
	// panicGrace is how long a guest may live on after its kernel panicked.
	panicGrace = 3 * time.Second
	// endGrace is how long QEMU may take to follow the end of the link.
	endGrace = 2 * time.Second
	// powerOffGrace is how long a guest may take to power off after its bye.
	powerOffGrace = 10 * time.Second
	// collectMargin is what the default timeout allows beside boot and spec.
	collectMargin = 30 * time.Second

	// workerSilence is what each worker adds to the longest time without a frame.
	workerSilence = 20 * time.Millisecond
)

func (o Options) withDefaults() (Options, error) {
	if o.Spec == nil && !o.DryRun {
		return o, &Error{Class: Usage, Msg: "no spec to run"}
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"timeout", o.Timeout}, {"boot timeout", o.BootTimeout}, {"silence", o.Silence}} {
		if d.d < 0 {
			return o, &Error{Class: Usage, Msg: fmt.Sprintf("%s: %v is negative", d.name, d.d)}
		}
	}
	if strings.ContainsAny(o.Append, "\n\x00") {
		return o, &Error{Class: Usage, Msg: "append: holds a newline or a NUL"}
	}
	switch o.Link {
	case "", "auto", optVsock, optSerial:
	default:
		return o, &Error{Class: Usage, Msg: fmt.Sprintf("link: %q is not auto, vsock or serial", o.Link)}
	}
	if _, _, err := parseAccel(o.Accel); err != nil {
		return o, err
	}
	if o.MemoryMiB == 0 {
		t := o.Topology
		o.MemoryMiB = max(defaultMemory(o.Spec), t.Memory, t.Nodes*nodeMemory+t.CPUs()*cpuMemory)
	}
	if err := o.topology(); err != nil {
		return o, err
	}
	if o.CPUs == 0 && o.Topology.IsZero() {
		o.CPUs = defaultCPUs(o.Spec)
	}
	if o.Silence == 0 {
		// While thousands are born and start, PID 1's own tasks hardly get a turn.
		o.Silence = time.Minute
		if o.Spec != nil {
			o.Silence += time.Duration(o.Spec.Workers()) * workerSilence
		}
	}
	if o.Init == "" {
		exe, err := os.Executable()
		if err != nil {
			return o, &Error{Class: Setup, Msg: "find own executable", Err: err}
		}
		o.Init = exe
	}
	return o, nil
}

// bootTimeout is the deadline of the hello under a.
func (o Options) bootTimeout(a qemu.Accelerator) time.Duration {
	switch {
	case o.BootTimeout > 0:
		return o.BootTimeout
	case a.Kind == qemu.KVM:
		return 20 * time.Second
	}
	return time.Minute
}

// total is the deadline of an attempt under a, of a run without --timeout.
func (o Options) total(a qemu.Accelerator) time.Duration {
	d := o.bootTimeout(a) + collectMargin
	if o.Spec != nil {
		d += time.Duration(o.Spec.Deadline)
	}
	return d
}

// withTotal bounds ctx by --timeout, which counts everything.
func (o Options) withTotal(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, o.Timeout, &Error{Class: Timeout, Msg: fmt.Sprintf("the run did not end within %v (--timeout)", o.Timeout)})
}

// parseAccel splits Options.Accel into kind and thread; kind is "" for auto.
func parseAccel(s string) (kind, thread string, err error) {
	switch s {
	case "", "auto":
		return "", "", nil
	case "kvm":
		return qemu.KVM, "", nil
	case "tcg":
		return qemu.TCG, "", nil
	case "tcg,thread=single":
		return qemu.TCG, qemu.Single, nil
	case "tcg,thread=multi":
		return qemu.TCG, qemu.Multi, nil
	}
	return "", "", &Error{Class: Usage, Msg: fmt.Sprintf("accel: %q is not auto, kvm, tcg, tcg,thread=single or tcg,thread=multi", s)}
}

// defaultMemory is 512 MiB for what fits: the image, the kernel and some 1000
// workers; a quarter of a MiB for each worker beyond.
func defaultMemory(s *spec.Spec) int {
	workers := 0
	if s != nil {
		workers = s.Workers()
	}
	return 512 + max(0, workers-1000)/4
}

// defaultCPUs is 2, the fastest to boot, or as many as the spec names.
func defaultCPUs(s *spec.Spec) int {
	n := 2
	if s == nil {
		return n
	}
	need := func(list spec.CPUList) {
		if len(list) > 0 {
			n = max(n, list[len(list)-1]+1)
		}
	}
	affinity := func(a *spec.Affinity) {
		if a == nil {
			return
		}
		need(a.Exact)
		if a.RandomSubset != nil {
			need(a.RandomSubset.From)
		}
	}
	for _, g := range s.Placed() {
		affinity(g.Affinity)
	}
	s.EachCgroup(func(c *spec.Cgroup) {
		if c.Cpuset != nil {
			need(c.Cpuset.Exact)
		}
	})
	s.EachOp(func(o *spec.Op) {
		if o.SetCpuset != nil && o.SetCpuset.Cpuset != nil {
			need(o.SetCpuset.Cpuset.Exact)
		}
		if o.SetAffinity != nil {
			affinity(o.SetAffinity.Affinity)
		}
	})
	return n
}
