package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	imagePrefix = "linux-image-"

	maxToolOutput = 64 << 20 // package records of every kernel in three suites are under 1 MB
	toolTail      = 2 << 10  // bytes of a tool's messages that go into an error
)

// apt runs apt's tools with private sources, lists and cache, so that nothing
// on the machine changes and no privilege is needed. The machine's apt.conf
// still holds: it knows the proxies.
type apt struct {
	dir string // private state; kept between fetches so that lists need not come again
}

// aptConfig clears the hooks of the machine's own apt.conf: they are meant
// for the real package state and not all of them work without root.
const aptConfig = `#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::Etc::SourceList "%[1]s/guestinit.sources";
Dir::Etc::SourceParts "-";
Dir::Etc::Preferences "-";
Dir::Etc::PreferencesParts "-";
Dir::State::Lists "%[1]s/lists";
Dir::Cache "%[1]s/cache";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "60";
APT::Get::List-Cleanup "false";
APT::Update::Error-Mode "any";
%[2]s`

// The state lies in the caller's own directory, which the _apt user of a
// privileged apt cannot enter.
const aptAsRoot = `APT::Sandbox::User "root";
`

func newAPT(dir string) (*apt, error) {
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	extra := ""
	if os.Geteuid() == 0 {
		extra = aptAsRoot
	}
	conf := fmt.Sprintf(aptConfig, dir, extra)
	if err := os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return &apt{dir: dir}, nil
}

// update fetches and verifies the package lists of exactly these sources.
func (a *apt) update(ctx context.Context, sources []source) error {
	name := filepath.Join(a.dir, "guestinit.sources")
	if err := os.WriteFile(name, []byte(deb822(sources)), 0o644); err != nil {
		return err
	}
	_, err := a.run(ctx, a.dir, "apt-get", "-q", "update")
	return err
}

// candidate is a kernel package that could be fetched.
type candidate struct {
	name    string // linux-image-RELEASE
	version string // Debian version
	depends string
}

func (c candidate) release() string { return strings.TrimPrefix(c.name, imagePrefix) }

func (c candidate) matches(want string) bool {
	return c.name == want || matchesVersion(c.release(), want) || matchesVersion(c.version, want)
}

// candidates returns the kernels of a flavour such as cloud-amd64, newest
// first.
func (a *apt) candidates(ctx context.Context, flavour string) ([]candidate, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "pkgnames", imagePrefix)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range strings.Fields(string(out)) {
		release := strings.TrimPrefix(name, imagePrefix)
		if isDigit(release[0]) && strings.HasSuffix(release, "-"+flavour) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	out, err = a.run(ctx, a.dir, "apt-cache", append([]string{"show"}, names...)...)
	if err != nil {
		return nil, err
	}
	return parseCandidates(out)
}

// parseCandidates reads apt-cache show's records, newest kernel first.
func parseCandidates(records []byte) ([]candidate, error) {
	stanzas, err := parseStanzas(bytes.NewReader(records))
	if err != nil {
		return nil, fmt.Errorf("read package records: %w", err)
	}
	var found []candidate
	for _, s := range stanzas {
		// Records of installed packages carry no Filename and cannot be fetched.
		if s["filename"] != "" && strings.HasPrefix(s["package"], imagePrefix) {
			found = append(found, candidate{name: s["package"], version: s["version"], depends: s["depends"]})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return compareVersions(b.version, a.version) })
	return found, nil
}

// parts lists the packages, as NAME=VERSION, that together hold the kernel.
// From 7.x on linux-image is empty and the files lie in packages of their own.
func (c candidate) parts() []string {
	out := []string{c.name + "=" + c.version}
	for _, dep := range strings.Split(c.depends, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(dep), " ")
		for _, kind := range []string{"linux-binary-", "linux-modules-", "linux-base-"} {
			if name == kind+c.release() {
				out = append(out, name+"="+c.version)
			}
		}
	}
	return out
}

// download fetches packages into dir, which must be empty, and returns the
// files. apt checks them against its signed lists.
func (a *apt) download(ctx context.Context, dir string, packages []string) ([]string, error) {
	if _, err := a.run(ctx, dir, "apt-get", append([]string{"-q", "download"}, packages...)...); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return nil, err
	}
	if len(debs) != len(packages) {
		return nil, fmt.Errorf("apt-get download %s: got %d files for %d packages", strings.Join(packages, " "), len(debs), len(packages))
	}
	return debs, nil
}

func (a *apt) run(ctx context.Context, dir, tool string, args ...string) ([]byte, error) {
	return runTool(ctx, dir, tool, append([]string{"-c", filepath.Join(a.dir, "apt.conf")}, args...)...)
}

// runTool runs a tool to its end and returns what it wrote to standard
// output. When ctx ends, the tool and its children are killed.
func runTool(ctx context.Context, dir, tool string, args ...string) ([]byte, error) {
	var stdout, stderr limitedBuffer
	stdout.limit, stderr.limit = maxToolOutput, 1<<20
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("run %s: %w", tool, context.Cause(ctx))
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("run %s: %w; fetching needs a Debian-like host, elsewhere give a kernel by path", tool, err)
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", tool, err, tail(stderr.Bytes(), toolTail))
	}
	if stdout.cut {
		return nil, fmt.Errorf("run %s: more than %d bytes of output", tool, maxToolOutput)
	}
	return stdout.Bytes(), nil
}

// limitedBuffer keeps the first limit bytes and swallows the rest, so that a
// tool never blocks on a full pipe.
type limitedBuffer struct {
	bytes.Buffer
	limit int
	cut   bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	keep := min(len(p), b.limit-b.Len())
	b.cut = b.cut || keep < len(p)
	b.Buffer.Write(p[:keep])
	return len(p), nil
}

func tail(b []byte, n int) string {
	b = bytes.TrimSpace(b)
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return string(b)
}
