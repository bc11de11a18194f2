package guest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/vsock"
)

// Paths in an image, below its root.
const (
	imageDir     = "etc/guestinit"
	modulesPath  = imageDir + "/modules"
	specPath     = imageDir + "/spec.json"
	completePath = imageDir + "/complete"
)

// boot is the state of a guest from its first line to its last.
type boot struct {
	opts Options
	run  RunFunc
	sys  system
	root string // of the file system; tests put a directory here
	con  *console
	dial func(line cmdline.Line, link string) (io.ReadWriteCloser, error) // to the host

	line   cmdline.Line
	link   *vsock.Guest // nil without a host
	device string       // what link goes through, for the report: "vsock", "serial" or "none"
	spec   []byte       // JSON, as it came
	parsed *spec.Spec   // the same, checked
	notes  []string
	bootMs map[string]float64
	begun  map[string]bool // steps that were begun
	failed bool            // a required step failed; the host is to be told, if it is there
}

// step is one line in the course of a boot.
type step struct {
	name     string
	required bool // its failure ends the run; else it leaves a note
	rescue   bool // needed to tell the host about the failure of an earlier step
	timed    bool // has a stage in the report's boot_ms
	do       func() (string, error)
}

// steps returns the course of a boot. What do returns goes on the console.
func (b *boot) steps() []step {
	return []step{
		{name: "proc", required: true, do: b.mountProc},
		{name: "cmdline", required: true, rescue: true, do: b.readCmdline},
		{name: "mounts", required: true, timed: true, do: b.mountAll},
		{name: "image", required: true, do: b.checkImage},
		{name: "limits", do: b.raiseLimits},
		{name: "modules", rescue: true, timed: true, do: b.loadModules},
		{name: "link", required: true, rescue: true, timed: true, do: b.openLink},
		{name: "spec", required: true, timed: true, do: b.findSpec},
	}
}

func (b *boot) boot() error {
	b.begun = make(map[string]bool)
	steps := b.steps()
	for _, s := range steps {
		err := b.take(s)
		if err == nil {
			continue
		}
		if !s.required {
			b.note(err.Error())
			continue
		}
		b.failed = true
		for _, r := range steps {
			if r.rescue && !b.begun[r.name] {
				if err := b.take(r); err != nil {
					b.con.printf("%v", err)
				}
			}
		}
		return err
	}
	b.bootMs["ready"] = ms(bootTime())
	return nil
}

// take runs one step.
func (b *boot) take(s step) error {
	b.begun[s.name] = true
	from := bootTime()
	did, err := s.do()
	took := bootTime() - from
	if s.timed {
		b.bootMs[s.name] = ms(took)
	}
	if err != nil {
		return &Error{status(err), fmt.Errorf("%s: %w", s.name, err)}
	}
	if did != "" && !b.line.Quiet {
		b.con.printf("%s: %s (%v)", s.name, did, took.Round(10*time.Microsecond))
	}
	return nil
}

// note keeps a line for the report and puts it on the console.
func (b *boot) note(text string) {
	b.notes = append(b.notes, text)
	b.con.printf("note: %s", text)
}

// path returns a path below the root.
func (b *boot) path(p string) string { return filepath.Join(b.root, p) }

func (b *boot) readCmdline() (string, error) {
	raw, err := readFile(b.path("proc/cmdline"), cmdline.MaxLine)
	if err != nil {
		return "", err
	}
	b.line, err = cmdline.Parse(string(raw))
	for _, w := range b.line.Warnings {
		b.note(w)
	}
	return "", err
}

// checkImage refuses an image that was cut off. The kernel unpacks what it got
// of one and goes on.
func (b *boot) checkImage() (string, error) {
	if _, err := os.Stat(b.path(imageDir)); err != nil {
		return "", nil // not an image of ours
	}
	if _, err := os.Stat(b.path(completePath)); err != nil {
		return "", fmt.Errorf("/%s is missing: the initramfs is truncated; build it again, or give the guest more memory", completePath)
	}
	return "", nil
}

// openFiles is how many files PID 1 may hold open: a pidfd per worker and more.
const openFiles = 1 << 20

func (b *boot) raiseLimits() (string, error) {
	if b.root != "/" {
		return "", nil
	}
	lim := unix.Rlimit{Cur: openFiles, Max: openFiles}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return "", fmt.Errorf("set RLIMIT_NOFILE to %d: %w", openFiles, err)
	}
	return "", nil
}

// specSource tells where the spec comes from.
func (b *boot) specSource() string {
	if b.line.Spec != "" {
		return b.line.Spec
	}
	if _, err := os.Stat(b.path(specPath)); err == nil {
		return cmdline.SpecImage
	}
	return cmdline.SpecLink
}

// findSpec brings the spec from where it is.
func (b *boot) findSpec() (string, error) {
	var err error
	source := b.specSource()
	switch source {
	case cmdline.SpecLink:
		if b.link == nil {
			return "", &Error{vsock.StatusSpec, fmt.Errorf("no spec: none in %s=, none at /%s, no host to ask", cmdline.KeySpec, specPath)}
		}
		b.spec, err = b.link.ReceiveSpec(cmdline.MaxSpec)
	case cmdline.SpecImage:
		b.spec, err = readFile(b.path(specPath), cmdline.MaxSpec)
	default:
		b.spec, err = cmdline.DecodeSpec(source)
		source = "command line"
	}
	if err == nil {
		b.parsed, err = spec.ParseJSON(b.spec)
	}
	if err != nil {
		return "", &Error{vsock.StatusSpec, err}
	}
	return fmt.Sprintf("%d bytes from the %s", len(b.spec), source), nil
}

// readFile reads a whole file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, limit)
	}
	return data, nil
}
