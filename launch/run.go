package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/guestinit/guestinit/check"
	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
)

// Result is what a run left.
type Result struct {
	// Report is there once a guest was started, whole or with what the guest
	// had sent; its Failures and Verdict say so. Nil after a dry run.
	Report   *report.Report
	Command  string // QEMU's command line; after DryRun to be pasted into a shell
	Dir      string // directory with image, console, report and a script to boot by hand, after Keep or DryRun
	Kernel   *kernel.Kernel
	Accel    qemu.Accelerator
	Attempts int           // boots, at least 1 unless a dry run
	Console  []byte        // the end of the guest's console
	Exit     qemu.Exit     // how QEMU ended
	Took     time.Duration // all of the run
	Guest    time.Duration // of that the last boot: from the start of QEMU to its end
}

// Run does one run, and takes what it takes but never longer than the deadlines
// of o allow. Its error is always an *Error. The Result is never nil, and has a
// Report beside an error too: a guest whose kernel oopsed may still report.
func Run(ctx context.Context, o Options) (*Result, error) {
	r := &runner{o: o, start: time.Now(), res: &Result{}}
	err := r.run(ctx)
	r.res.Took = time.Since(r.start)
	if r.image != nil {
		r.image.Close()
	}
	return r.res, wrap(Setup, "run the guest", err)
}

// runner is the state of one Run.
type runner struct {
	o     Options
	start time.Time
	res   *Result

	specJSON []byte
	links    []link      // to try, the best one first
	link     link        // the one of the boot, links[0]
	handLine string      // kernel command line of a boot by hand
	config   qemu.Config // of every attempt, but for the accelerator
	image    *os.File
	version  qemu.Version
	prober   qemu.Prober
	cache    string // directory, "" for none
	doubt    string // why the KVM that Options.Accel insists on is not to be trusted
	notes    []string
	bootMs   map[string]float64

	emitting sync.Mutex // held while Options.Progress runs
	logging  sync.Mutex
	logged   []string // guarded by logging: what the link's device says
}

func (r *runner) run(ctx context.Context) error {
	if err := r.prepare(); err != nil {
		return err
	}
	ctx, cancel := r.o.withTotal(ctx)
	defer cancel()
	plan, err := r.pack(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return interrupted(ctx)
		}
		return err
	}
	if r.res.Dir != "" {
		r.emit(Event{Stage: StageKeep, Text: r.res.Dir})
	}
	if r.o.DryRun {
		return nil
	}
	return r.attempts(ctx, plan)
}

// prepare checks the options and everything that needs no time.
func (r *runner) prepare() (err error) {
	if r.o, err = r.o.withDefaults(); err != nil {
		return err
	}
	if r.o.Spec != nil {
		// What the guest would refuse is refused here, where the user sees it.
		if err := r.o.Spec.Validate(); err != nil {
			return &Error{Class: Usage, Msg: "the spec is not valid", Err: err}
		}
		if r.specJSON, err = r.o.Spec.JSON(); err != nil {
			return &Error{Class: Usage, Msg: "encode spec", Err: err}
		}
	}
	cache, err := kernel.CacheDir()
	if err != nil {
		r.notes = append(r.notes, err.Error()) // a run without a cache is a slow run, no more
	}
	r.cache, r.prober = cache, qemu.Prober{CacheDir: cache}
	return nil
}

// pack finds the parts of the machine and puts them together. QEMU's version
// and the choice of accelerator are found while the image is built.
func (r *runner) pack(ctx context.Context) ([]qemu.Accelerator, error) {
	binary, err := qemu.FindBinary(r.o.QEMU)
	if err != nil {
		return nil, &Error{Class: Setup, Msg: "no QEMU", Err: err}
	}
	var plan accelPlan
	var planErr error
	var planned sync.WaitGroup
	planned.Go(func() {
		if r.version, planErr = qemu.CachedVersion(ctx, binary, r.cache); planErr == nil {
			plan, planErr = r.plan(ctx)
		}
	})
	err = r.build(binary)
	planned.Wait()
	r.doubt = plan.doubt
	if plan.note != "" {
		r.notes = append(r.notes, plan.note)
	}
	if err == nil && planErr != nil {
		err = wrap(Setup, "use QEMU", planErr)
	}
	if err != nil {
		return nil, err
	}
	r.res.Accel = plan.accels[0]
	return plan.accels, r.command(plan.accels[0])
}

// accelPlan is what to run the guest with.
type accelPlan struct {
	accels []qemu.Accelerator // to try, the best one first
	note   string             // why there is not a better one
	doubt  string             // why the KVM that the user insists on may fail
}

// plan chooses the accelerators. It runs beside build: of r it writes nothing.
func (r *runner) plan(ctx context.Context) (p accelPlan, err error) {
	kind, thread, err := parseAccel(r.o.Accel)
	if err != nil {
		return p, err
	}
	kinds := []string{kind}
	switch kind {
	case "":
		kinds = []string{qemu.TCG}
		if probe := r.prober.Probe(ctx); probe.Usable {
			kinds = []string{qemu.KVM, qemu.TCG}
		} else {
			p.note = "KVM is not used: " + probe.Reason
		}
	case qemu.KVM:
		if probe := r.prober.Probe(ctx); !probe.Usable {
			p.doubt = probe.Reason
			p.note = "KVM was asked for and is not to be trusted: " + probe.Reason
		}
	}
	for _, k := range kinds {
		a, err := qemu.NewAccelerator(k, thread, r.version)
		if err != nil {
			return p, err
		}
		p.accels = append(p.accels, a)
	}
	if last := p.accels[len(p.accels)-1]; last.Thread == qemu.Multi {
		single, err := qemu.NewAccelerator(qemu.TCG, qemu.Single, r.version)
		if err != nil {
			return p, err
		}
		p.accels = append(p.accels, single)
	}
	return p, nil
}

// build finds the kernel and builds the image and the configuration.
func (r *runner) build(binary string) error {
	k, err := kernel.Find(r.o.Kernel, r.o.Modules)
	if err != nil {
		return &Error{Class: Setup, Msg: "no kernel to boot", Err: err}
	}
	r.res.Kernel = k
	image, err := k.Vmlinux()
	if err != nil {
		image = k.Image
		r.notes = append(r.notes, fmt.Sprintf("the kernel unpacks itself in the guest: %v", err))
	}
	r.emit(Event{Stage: StageKernel, Text: fmt.Sprintf("%s (%s)", k.Release, k.Image)})
	if err := r.keep(); err != nil {
		return &Error{Class: Setup, Msg: "keep the run", Err: err}
	}
	links, notes, err := chooseLinks(r.o.Link, k)
	if err != nil {
		return err
	}
	r.links, r.link, r.notes = links, links[0], append(r.notes, notes...)
	inline, err := r.commandLines()
	if err != nil {
		return wrap(Usage, "build the kernel command line", err)
	}
	r.config = qemu.Config{
		Binary: binary, Kernel: image,
		Initrd: filepath.Join(r.res.Dir, keepImage), MemoryMiB: r.o.MemoryMiB, CPUs: r.o.CPUs, Topology: r.o.Topology,
	}
	io := initramfs.Options{Init: r.o.Init, Kernel: k, Features: linkFeatures(links), Files: r.o.Files}
	if r.res.Dir != "" && !inline {
		io.Spec = r.specJSON
	}
	return r.buildImage(io)
}

// commandLines builds the kernel command line of a guest started by hand, which
// has nobody at the other end of the link and so shows its report on the
// console, and tries that of the run. inline says whether the spec is in the
// former; else it is to be in the image.
func (r *runner) commandLines() (inline bool, err error) {
	hand := kernelLine{link: cmdline.LinkNone, user: r.o.Append, spec: r.specJSON, fallback: cmdline.SpecImage}
	if r.handLine, inline, err = hand.build(); err != nil {
		return false, err
	}
	_, err = r.line()
	return inline, err
}

// line is the kernel command line for the boot's link.
func (r *runner) line() (string, error) {
	if r.o.DryRun {
		return r.handLine, nil
	}
	k := kernelLine{link: r.link.word(), deadline: guestDeadline(r.o.Timeout), user: r.o.Append, spec: r.specJSON, fallback: cmdline.SpecLink}
	line, _, err := k.build()
	return line, err
}

func (r *runner) buildImage(o initramfs.Options) error {
	start := time.Now()
	path := ""
	if r.res.Dir != "" {
		path = r.config.Initrd
	}
	f, m, err := writeImage(path, o)
	if err != nil {
		return &Error{Class: Setup, Msg: "pack the image", Err: err}
	}
	r.image = f
	r.notes = append(r.notes, m.Notes...)
	took := time.Since(start)
	r.bootMs = map[string]float64{"image": ms(took)}
	r.emit(Event{Stage: StageImage, Text: fmt.Sprintf("%.1f MB, %s, in %v", float64(m.Bytes)/1e6, report.Plural(len(m.Modules), "module"), took.Round(time.Millisecond))})
	return nil
}

// keep makes the directory of a run that is to be kept.
func (r *runner) keep() (err error) {
	if r.o.Keep || r.o.DryRun {
		r.res.Dir, err = keepDir(r.specJSON)
	}
	return err
}

// command fixes the command line of accelerator a in the result.
func (r *runner) command(a qemu.Accelerator) (err error) {
	c := r.config
	c.Accel = a
	if c.Append, err = r.line(); err != nil {
		return err
	}
	hand := c
	hand.Append = r.handLine
	serialLink{}.show(&hand, r.res.Dir)
	if r.o.DryRun {
		c = hand
	} else {
		r.link.show(&c, r.res.Dir)
	}
	if err := c.Validate(); err != nil {
		return &Error{Class: Usage, Msg: "configure QEMU", Err: err}
	}
	r.res.Accel, r.res.Command = a, c.Command()
	if r.res.Dir == "" {
		return nil
	}
	if err := keepScript(r.res.Dir, hand.Command()); err != nil {
		return &Error{Class: Setup, Msg: "keep the run", Err: err}
	}
	return nil
}

// attempts boots the guest, and boots it again under the next accelerator if
// it never reached /init.
func (r *runner) attempts(ctx context.Context, plan []qemu.Accelerator) error {
	for i := 0; i < len(plan); {
		a := plan[i]
		if err := r.command(a); err != nil {
			return err
		}
		r.res.Attempts++
		r.emit(Event{Stage: StageBoot, Text: fmt.Sprintf("QEMU %s, %s, %s, %d MiB, link %s", r.version, a, report.Plural(r.config.WithDefaults().CPUs, "CPU"), r.config.MemoryMiB, r.link.name())})
		e, err := r.boot(ctx, a)
		var noLink *linkError
		switch {
		case errors.As(err, &noLink) && r.nextLink(err.Error()):
			r.res.Attempts-- // nothing was booted
			continue
		case err != nil && ctx.Err() != nil:
			return interrupted(ctx)
		case err != nil:
			return wrap(Setup, "start the guest", err)
		case e.linkRefused() && ctx.Err() == nil && r.nextLink("QEMU does not take its device"+lastWords(e.exit)):
			continue
		case e.stalled != "" && i+1 < len(plan) && ctx.Err() == nil:
			r.giveUp(a, plan[i+1], e)
			i++
			continue
		}
		return r.finish(e)
	}
	return &Error{Class: Setup, Msg: "no accelerator to try"}
}

// nextLink goes on to the next link, if there is one, for the reason why.
func (r *runner) nextLink(why string) bool {
	if len(r.links) < 2 {
		return false
	}
	note := fmt.Sprintf("the host link is not %s: %s; tried again with %s", r.links[0].name(), why, r.links[1].name())
	r.links = r.links[1:]
	r.link = r.links[0]
	r.notes = append(r.notes, note)
	r.emit(Event{Stage: StageRetry, Text: note})
	return true
}

func (r *runner) giveUp(a, next qemu.Accelerator, e *ended) {
	note := fmt.Sprintf("boot %d under %s was given up (%s); tried again under %s", r.res.Attempts, a, e.stalled, next)
	r.notes = append(r.notes, note)
	r.emit(Event{Stage: StageRetry, Text: note})
	if a.Kind != qemu.KVM {
		return
	}
	if err := r.prober.Distrust("it failed a guest: " + e.stalled); err != nil {
		r.notes = append(r.notes, err.Error())
	}
}

// finish completes the report with what the host knows and judges it.
func (r *runner) finish(e *ended) error {
	r.res.Console, r.res.Exit, r.res.Report = e.console, e.exit, e.rep
	e.kvmDoubt = r.doubt
	failure := diagnose(e.facts)
	rep := e.rep
	r.describe(&rep.Run, e)
	rep.Notes = append(rep.Notes, r.notes...)
	rep.Notes = append(rep.Notes, e.notes...)
	r.logging.Lock()
	rep.Notes = append(rep.Notes, r.logged...)
	r.logging.Unlock()
	rep.Notes = append(rep.Notes, consoleNotes(e.findings)...)
	if failure != nil {
		failure.Console, failure.Command, failure.Dir = e.console, r.res.Command, r.res.Dir
		if e.out.ReportBytes == 0 {
			rep.Failures = nil // of a report that never began; the failure says why
		}
		rep.Failures = append([]string{failure.Error()}, rep.Failures...)
	}
	if failure == nil {
		rep.Failures = append(rep.Failures, topologyFailures(r.o.Topology, rep.Run.Topology)...)
	}
	check.Finish(rep, r.o.Spec)
	r.emit(Event{Stage: StageReport, Text: fmt.Sprintf("%s, verdict %s", report.Plural(len(rep.Workers), "worker"), rep.Verdict)})
	if failure != nil {
		return failure
	}
	return nil
}

// describe fills in what the host knows of the run, and what the guest had no
// time to say.
func (r *runner) describe(run *report.Run, e *ended) {
	run.Accelerator, run.QEMUVersion, run.BootAttempts = r.res.Accel.String(), r.version.String(), r.res.Attempts
	if h := e.out.Hello; h != nil && run.KernelRelease == "" {
		run.KernelRelease, run.Machine, run.Version = oneLine(h.KernelRelease), oneLine(h.Machine), oneLine(h.Version)
	}
	if run.KernelRelease == "" {
		run.KernelRelease = r.res.Kernel.Release
	}
	// The guest only knows that it is a vsock.
	if run.Link = r.link.name(); e.link != "" {
		run.Link = e.link
	}
	if run.Name == "" {
		run.Name = r.o.Spec.Name
	}
	if run.BootMs == nil {
		run.BootMs = map[string]float64{}
	}
	for _, from := range []map[string]float64{r.bootMs, e.bootMs} {
		for stage, v := range from {
			run.BootMs[stage] = v
		}
	}
}

// emit passes an event on.
func (r *runner) emit(e Event) {
	if r.o.Progress == nil {
		return
	}
	r.emitting.Lock()
	defer r.emitting.Unlock()
	e.At = time.Since(r.start)
	r.o.Progress(e)
}
