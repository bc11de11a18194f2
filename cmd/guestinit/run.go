package main

import (
	"flag"
	"fmt"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/report"
)

func setUpRun(fs *flag.FlagSet) func([]string, streams) int {
	var o launch.Options
	var out output
	var files fileList
	var live feed
	out.flags(fs)
	live.flags(fs)
	fs.Func("memory", "guest memory, `SIZE` in MiB or with M or G (default 512M, more for thousands of workers)", parsed(&o.MemoryMiB, parseMemory))
	fs.StringVar(&o.Kernel, "kernel", "", "kernel `PATH`: bzImage, vmlinux, or a directory with boot/vmlinuz-* and lib/modules\n(default $GUESTINIT_KERNEL, then the newest in the cache, then the running kernel)")
	fs.StringVar(&o.Modules, "modules", "", "`DIR` with the kernel's modules (lib/modules/RELEASE)")
	fs.Func("cpus", "`NUMBER` of guest CPUs (default 2, more if the spec names higher ones)", parsed(&o.CPUs, parseCPUs))
	fs.Func("topology", "guest CPUs as `NnNlNcNt`: NUMA nodes, last-level caches in all, cores of each cache, threads of each core,\nsuch as 2n4l4c2t, or by name, such as tiny-2llc or numa2-4llc", parsed(&o.Topology, qemu.ParseTopology))
	fs.StringVar(&o.Accel, "accel", "auto", "auto, kvm, tcg, tcg,thread=single or tcg,thread=multi")
	fs.StringVar(&o.Link, "link", "auto", "what joins guest and host: auto, vsock or serial")
	fs.Func("timeout", "end the whole run after `DURATION`, such as 90s (default: boot, the spec's deadline and 30s)", parsed(&o.Timeout, parseTimeout))
	fs.StringVar(&o.ConsoleFile, "console", "", "write the guest's console to `FILE`")
	fs.StringVar(&o.Append, "append", "", "further kernel command line `WORDS`")
	fs.StringVar(&o.QEMU, "qemu", "", "QEMU `PATH` (default qemu-system-x86_64)")
	fs.BoolVar(&o.DryRun, "dry-run", false, "boot nothing: write the image and print the QEMU command")
	fs.BoolVar(&o.Keep, "keep", false, "keep image, spec, console and report of the run in a directory")
	fs.Var(&files, "file", "add `SRC[:DST]` to the image, with the libraries it needs; can be repeated\n(programs that the spec executes are added by themselves)")
	return func(args []string, io streams) int {
		s, err := readSpec(args, io.in)
		if err == nil {
			o.Files, err = withPrograms(s, files)
		}
		if err == nil {
			err = live.check(&out)
		}
		if err != nil {
			return fail(io, launch.Usage, err)
		}
		s.Samples = s.Samples || out.samples
		o.Spec, o.Samples = s, s.Samples
		if o.Progress, err = live.open(io); err == nil && !o.DryRun {
			err = out.open()
		}
		if err != nil {
			return fail(io, launch.Setup, err)
		}
		ctx, stop := interruptible()
		defer stop()
		res, err := launch.Run(ctx, o)
		io = live.close(io)
		var r *report.Report
		if res != nil {
			r = res.Report
			if o.DryRun && err == nil {
				fmt.Fprintln(io.out, res.Command)
				return launch.StatusPass
			}
		}
		return live.status(out.finish(r, err, io))
	}
}
