package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/term"

	"github.com/guestinit/guestinit/internal/firstline"
	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/spec"
)

// version is the version of this build: the release that the linker set, else
// what the Go tool recorded of the source.
func version() string {
	if firstline.Release != "" {
		return firstline.Release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// streams are what a command reads and writes: data to out, everything else to
// err.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// command is one subcommand. setUp declares its flags and returns what runs it.
type command struct {
	name    string
	args    string // after the name in the usage line
	summary string
	setUp   func(fs *flag.FlagSet) func(args []string, io streams) int
}

func commands() []command {
	return []command{
		{"run", "[flags] [SPEC.yaml|SPEC.json|-]", "boot a kernel in QEMU, run the workload there, show its report", setUpRun},
		{"local", "[flags] [SPEC.yaml|SPEC.json|-]", "run the workload on this machine, without a VM", setUpLocal},
		{"pack", "-o FILE [flags]", "write the initramfs image alone", setUpPack},
		{"kernel fetch", "[VERSION]", "download a Debian kernel through apt into the cache (nothing is installed)", setUpKernelFetch},
		{"kernel list", "", "list the kernels in the cache", setUpKernelList},
		{"types", "[--json]", "list the work types and their parameters", setUpTypes},
		{"spec validate", "FILE", "check a workload spec", setUpSpecValidate},
		{"spec schema", "", "print the JSON Schema of a spec, for editors and other programs", setUpSpecSchema},
		{"version", "", "print the version", setUpVersion},
	}
}

// run runs the command line and returns the exit status. Data that could not be
// written is no success.
func run(args []string, io streams) int {
	data := &dataWriter{w: io.out}
	io.out = data
	status := dispatch(args, io)
	if err := data.failure(); err != nil && status == launch.StatusPass {
		return fail(io, launch.Setup, fmt.Errorf("write data: %w", err))
	}
	return status
}

// dispatch runs the command that the arguments name.
func dispatch(args []string, io streams) int {
	if len(args) == 0 || isHelp(args[0]) {
		usage(io.out)
		if len(args) == 0 {
			return int(launch.Usage)
		}
		return launch.StatusPass
	}
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) < len(words) || strings.Join(args[:len(words)], " ") != c.name {
			continue
		}
		fs := flag.NewFlagSet("guestinit "+c.name, flag.ContinueOnError)
		fs.SetOutput(io.err)
		fs.Usage = func() {}
		exec := c.setUp(fs)
		rest, err := parseInterspersed(fs, args[len(words):])
		if errors.Is(err, flag.ErrHelp) {
			c.help(fs, io.out)
			return launch.StatusPass
		}
		if err != nil {
			return fail(io, launch.Usage, fmt.Errorf("%w; see `guestinit %s --help`", err, c.name))
		}
		return exec(rest, io)
	}
	name := args[0]
	if family := inFamily(name); len(family) > 0 {
		if len(args) == 1 || isHelp(args[1]) {
			return familyHelp(name, family, len(args) > 1, io)
		}
		name += " " + args[1]
	}
	return fail(io, launch.Usage, fmt.Errorf("unknown command %q%s; see `guestinit help`", name, nearestCommand(name)))
}

// inFamily returns the commands whose first word of two is name.
func inFamily(name string) (family []command) {
	for _, c := range commands() {
		if strings.HasPrefix(c.name, name+" ") {
			family = append(family, c)
		}
	}
	return family
}

// familyHelp says what a command of two words may go on with.
func familyHelp(name string, family []command, asked bool, io streams) int {
	w, status := io.err, int(launch.Usage)
	if asked {
		w, status = io.out, launch.StatusPass
	}
	fmt.Fprintf(w, "Usage: guestinit %s COMMAND\n\n", name)
	for _, c := range family {
		fmt.Fprintf(w, "  %-14s %s\n", c.name, c.summary)
	}
	return status
}

func nearestCommand(name string) string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	if near := spec.Nearest(name, names); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return ""
}

func isHelp(arg string) bool {
	return arg == "help" || arg == "-h" || arg == "--help" || arg == "-help"
}

// parseInterspersed parses flags wherever they stand and returns the other
// arguments; after "--" all are arguments.
func parseInterspersed(fs *flag.FlagSet, args []string) ([]string, error) {
	quiet := fs.Output()
	fs.SetOutput(io.Discard) // the error is shown once, by the caller
	defer fs.SetOutput(quiet)
	var rest []string
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		ended := len(left) < len(args) && args[len(args)-len(left)-1] == "--"
		if ended || len(left) == 0 {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
	return rest, nil
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "guestinit %s: run scheduler workloads on Linux kernels in QEMU\n\nUsage: guestinit COMMAND [arguments]\n\n", version())
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-14s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
Exit status: 0 pass, 1 a worker or check failed, 2 usage or bad spec,
3 the guest crashed, 4 timeout, 5 could not run (no kernel, no QEMU),
6 inconclusive: a check could not be judged (--allow-inconclusive makes it 0).
`+"`guestinit COMMAND --help` lists a command's flags.\n")
}

func (c *command) help(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, "Usage: guestinit %s\n\n%s.\n", strings.TrimSpace(c.name+" "+c.args), strings.ToUpper(c.summary[:1])+c.summary[1:])
	any := false
	fs.VisitAll(func(*flag.Flag) { any = true })
	if any {
		fmt.Fprint(w, "\nFlags:\n")
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
}

// fail prints an error, with all its lines, and returns the exit status.
func fail(io streams, class launch.Class, err error) int {
	fmt.Fprintf(io.err, "guestinit: %v\n", err)
	return int(class)
}

// terminal tells whether a stream is a terminal, and its width in columns (100
// where it is none).
func terminal(stream any) (bool, int) {
	if d, ok := stream.(*dataWriter); ok {
		stream = d.w
	}
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, 100
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 60 {
		width = 100
	}
	return true, width
}

func setUpVersion(*flag.FlagSet) func([]string, streams) int {
	return func(args []string, io streams) int {
		if len(args) > 0 {
			return fail(io, launch.Usage, fmt.Errorf("version: takes no arguments, got %q", args))
		}
		fmt.Fprintf(io.out, "guestinit %s %s linux/%s\n", version(), runtime.Version(), runtime.GOARCH)
		return launch.StatusPass
	}
}
