package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kinds of accelerator and threading modes of TCG.
const (
	KVM = "kvm"
	TCG = "tcg"

	Single = "single"
	Multi  = "multi"
)

// Accelerator is how QEMU runs the guest's code.
type Accelerator struct {
	Kind   string // KVM or TCG
	Thread string // Single or Multi, for TCG only
	CPU    string // QEMU's -cpu
}

// String returns QEMU's -accel: "kvm", "tcg,thread=single" or "tcg,thread=multi".
func (a Accelerator) String() string {
	if a.Kind == TCG {
		return TCG + ",thread=" + a.Thread
	}
	return a.Kind
}

func (a Accelerator) validate() error {
	ok := a.Kind == KVM && a.Thread == "" || a.Kind == TCG && (a.Thread == Single || a.Thread == Multi)
	if !ok || a.CPU == "" {
		return fmt.Errorf("qemu config: accelerator %q with CPU %q: not one that NewAccelerator makes", a, a.CPU)
	}
	return nil
}

// safeTCG is the first major version of QEMU whose TCG neither mishandles
// 128-bit compare-and-swap nor runs stale code after the guest patched itself
// with several vCPUs running.
const safeTCG = 10

// oldTCG is the CPU for QEMU before safeTCG. Besides, its "rep movsb" goes byte by
// byte, and a kernel copies with that where the CPU says that it is fast: without, a
// boot takes 5 % less. Both flags or none: with fsrm alone Linux 6.1 hangs.
const oldTCG = "max,-cx16,-erms,-fsrm"

// NewAccelerator returns the accelerator for kind on QEMU v. thread is Single,
// Multi or "" for the mode that is safe on v: parallel vCPUs from QEMU 10 on,
// one thread before.
func NewAccelerator(kind, thread string, v Version) (Accelerator, error) {
	a := Accelerator{Kind: kind, Thread: thread, CPU: "max"}
	switch {
	case kind == KVM:
		a.CPU = "host"
	case v.Major < safeTCG:
		a.CPU = oldTCG
		if thread == "" {
			a.Thread = Single
		}
	case thread == "":
		a.Thread = Multi
	}
	if err := a.validate(); err != nil {
		return Accelerator{}, fmt.Errorf("choose accelerator %q, thread %q: know kvm, tcg with thread single or multi", kind, thread)
	}
	return a, nil
}

// Probe says whether KVM can be trusted with a guest on this machine.
type Probe struct {
	Usable bool      `json:"usable"`
	Reason string    `json:"reason"` // one line, for people
	At     time.Time `json:"at"`
	Cached bool      `json:"-"` // the answer is an earlier probe's
}

// Prober asks whether KVM is what it seems. A device that opens, has the right
// API version and creates vCPUs proves nothing: a nested para-virtual KVM does
// all that and then emulates the guest's kernel one instruction at a time. So
// the last check runs code in a vCPU against the clock.
type Prober struct {
	Device    string // default /dev/kvm
	SysModule string // default /sys/module
	BootID    string // file with the boot id; default /proc/sys/kernel/random/boot_id
	CacheDir  string // where the answer is kept until the next boot; "" for nowhere

	run func(ctx context.Context, device string) (time.Duration, error) // default timeVCPU; tests replace it
}

const (
	// probeTimeout bounds the whole probe.
	probeTimeout = 2 * time.Second
	// probeRounds is how often the vCPU counts down; some 5 µs on hardware.
	probeRounds = 10000
	// probeLimit lies far above hardware with a busy host (best of several
	// runs) and far below an emulating KVM (some 8 ms).
	probeLimit = time.Millisecond
	probeFile  = "kvm-probe.json"
)

func (p Prober) withDefaults() Prober {
	if p.Device == "" {
		p.Device = "/dev/kvm"
	}
	if p.SysModule == "" {
		p.SysModule = "/sys/module"
	}
	if p.BootID == "" {
		p.BootID = "/proc/sys/kernel/random/boot_id"
	}
	if p.run == nil {
		p.run = timeVCPU
	}
	return p
}

// Probe returns the remembered answer of this boot, or finds and remembers it.
// It takes some milliseconds, at most two seconds, and never fails: what cannot
// be proved is not usable.
func (p Prober) Probe(ctx context.Context) Probe {
	p = p.withDefaults()
	key := p.key()
	if r, ok := p.recall(key); ok {
		return r
	}
	r := p.try(ctx)
	// A caller that gave up has learnt nothing about the machine.
	if ctx.Err() == nil {
		p.remember(key, r)
	}
	return r
}

// Distrust remembers that KVM failed a real guest, so that later runs in this
// boot of the host do not try it again.
func (p Prober) Distrust(reason string) error {
	p = p.withDefaults()
	return p.remember(p.key(), Probe{Reason: reason, At: time.Now()})
}

func (p Prober) try(ctx context.Context) Probe {
	no := func(format string, args ...any) Probe {
		return Probe{Reason: fmt.Sprintf(format, args...), At: time.Now()}
	}
	f, err := os.OpenFile(p.Device, os.O_RDWR, 0)
	if err != nil {
		return no("%v", err)
	}
	f.Close()
	if !p.hasModule("kvm_intel") && !p.hasModule("kvm_amd") {
		return no("%s opens, but neither kvm_intel nor kvm_amd stands behind it (%s)", p.Device, p.otherModules())
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	took, err := p.run(ctx, p.Device)
	switch {
	case err != nil:
		return no("%s opens, but its vCPU does not run: %v", p.Device, err)
	case took > probeLimit:
		return no("%s opens, but its vCPU took %v for %d rounds of a loop that hardware does in well under %v", p.Device, took, probeRounds, probeLimit)
	}
	return Probe{Usable: true, Reason: fmt.Sprintf("vCPU ran %d rounds in %v", probeRounds, took), At: time.Now()}
}

func (p Prober) hasModule(name string) bool {
	_, err := os.Stat(filepath.Join(p.SysModule, name))
	return err == nil
}

// otherModules names the modules that do stand behind the device.
func (p Prober) otherModules() string {
	found, _ := filepath.Glob(filepath.Join(p.SysModule, "kvm_*"))
	if len(found) == 0 {
		return "no kvm_* module at all"
	}
	for i, f := range found {
		found[i] = filepath.Base(f)
	}
	return "only " + strings.Join(found, ", ")
}

// stored is the cache file: the answer and what it holds for.
type stored struct {
	Key string `json:"key"`
	Probe
}

// key names what an answer holds for: this boot of the host, this device as
// this user sees it. The format's version comes first.
func (p Prober) key() string {
	id, err := os.ReadFile(p.BootID)
	if err != nil {
		return ""
	}
	access := "absent"
	if fi, err := os.Stat(p.Device); err == nil {
		access = fi.Mode().String() + " " + fi.ModTime().UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("1 %s %s %s uid %d", strings.TrimSpace(string(id)), p.Device, access, os.Geteuid())
}

func (p Prober) recall(key string) (Probe, bool) {
	if p.CacheDir == "" || key == "" {
		return Probe{}, false
	}
	data, err := os.ReadFile(filepath.Join(p.CacheDir, probeFile))
	if err != nil {
		return Probe{}, false
	}
	var s stored
	if json.Unmarshal(data, &s) != nil || s.Key != key || s.Reason == "" {
		return Probe{}, false
	}
	s.Cached = true
	return s.Probe, true
}

// remember writes the cache file whole or not at all: runs beside each other
// share it.
func (p Prober) remember(key string, r Probe) error {
	if p.CacheDir == "" || key == "" {
		return nil
	}
	data, err := json.Marshal(stored{key, r})
	if err != nil {
		return fmt.Errorf("remember KVM probe: %w", err)
	}
	if err := replaceFile(filepath.Join(p.CacheDir, probeFile), data); err != nil {
		return fmt.Errorf("remember KVM probe: %w", err)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
