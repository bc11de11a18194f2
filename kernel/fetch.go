package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// fetchTimeout bounds a fetch whose context has no deadline of its own.
const fetchTimeout = 20 * time.Minute

// defaultLine is the kernel line that Fetch takes when none is asked for.
const defaultLine = "6.12"

// ErrVersion is matched when the version of a kernel is none.
var ErrVersion = errors.New("no version")

// versionChars are those of Debian versions and package names.
const versionChars = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+~:-"

// Fetch puts a distribution kernel into the cache and returns it. It uses
// apt's own download: nothing is installed and no root is needed.
//
// version is a line ("6.1", "6.12", "7.2"), a release or package name
// ("6.12.95+deb12-cloud-amd64"), or a Debian package version
// ("6.12.95-1~bpo12+1"); the newest match wins. It is looked for in the
// machine's own suite, then in its backports, then in sid. The empty version
// means the 6.12 line, or the own suite's newest kernel where there is none.
// A kernel in the cache that matches is returned at once, without a look at
// the archive.
//
// Lines of progress go to progress, which may be nil. The error of what is no
// version at all matches ErrVersion.
func Fetch(ctx context.Context, version string, progress io.Writer) (*Kernel, error) {
	if progress == nil {
		progress = io.Discard
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	f := &fetcher{version: strings.TrimSpace(version), progress: progress, etc: "/etc"}
	if word := strings.TrimPrefix(f.wanted(), imagePrefix); !isDigit(word[0]) || strings.Trim(word, versionChars) != "" {
		return nil, fmt.Errorf("fetch kernel %.100q: %w; write 6.12, a release or a package version", f.version, ErrVersion)
	}
	k, err := f.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", f.wanted(), err)
	}
	return k, nil
}

type fetcher struct {
	version  string
	progress io.Writer
	etc      string // "/etc" outside tests
	kernels  string // the cache's kernels directory
	apt      *apt
}

func (f *fetcher) wanted() string {
	if f.version == "" {
		return defaultLine
	}
	return f.version
}

func (f *fetcher) logf(format string, args ...any) {
	fmt.Fprintf(f.progress, "kernel: "+format+"\n", args...)
}

func (f *fetcher) fetch(ctx context.Context) (*Kernel, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	f.kernels = filepath.Join(cache, "kernels")
	if err := os.MkdirAll(f.kernels, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockDir(ctx, f.kernels)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := cached(f.wanted()); err != nil || k != nil {
		return k, err
	}
	if f.apt, err = newAPT(filepath.Join(cache, "apt")); err != nil {
		return nil, err
	}
	c, err := f.choose(ctx)
	if err != nil {
		return nil, err
	}
	return f.install(ctx, c)
}

// choose asks the archive, suite by suite, for the newest kernel that was
// asked for. Later suites are only looked at when the earlier have none.
func (f *fetcher) choose(ctx context.Context) (candidate, error) {
	a, err := machineArchive(f.etc)
	if err != nil {
		return candidate{}, err
	}
	flavour := "cloud-" + runtime.GOARCH
	sources := a.own
	var own []candidate
	for i, next := range []*source{nil, &a.backports, &a.unstable} {
		if next != nil {
			sources = append(sources[:len(sources):len(sources)], *next)
		}
		f.logf("read the package lists of %s", sources[len(sources)-1].suite)
		if err := f.apt.update(ctx, sources); err != nil {
			return candidate{}, err
		}
		found, err := f.apt.candidates(ctx, flavour)
		if err != nil {
			return candidate{}, err
		}
		if i == 0 {
			own = found
		}
		for _, c := range found {
			if c.matches(f.wanted()) {
				return c, nil
			}
		}
		if f.version == "" && i == 1 {
			break
		}
	}
	if f.version == "" && len(own) > 0 {
		return own[0], nil
	}
	return candidate{}, fmt.Errorf("no %s kernel matches in %s; see 'apt-cache search linux-image', or give a kernel by path", flavour, suites(sources))
}

func suites(sources []source) string {
	var names []string
	for _, s := range sources {
		names = append(names, s.suite)
	}
	return strings.Join(names, ", ")
}

// install downloads and unpacks c beside the cached kernels, and moves it
// into place when it is whole.
func (f *fetcher) install(ctx context.Context, c candidate) (*Kernel, error) {
	final := filepath.Join(f.kernels, c.release())
	if k, err := openDir(final, ""); err == nil {
		return k, nil
	}
	if err := f.sweep(final); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(f.kernels, tmpMark)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	debs, root := filepath.Join(tmp, "debs"), filepath.Join(tmp, "root")
	for _, d := range []string{debs, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	f.logf("download %s %s", c.name, c.version)
	files, err := f.apt.download(ctx, debs, c.parts())
	if err != nil {
		return nil, err
	}
	for _, deb := range files {
		f.logf("unpack %s", filepath.Base(deb))
		if _, err := runTool(ctx, debs, "dpkg-deb", "-x", deb, root); err != nil {
			return nil, err
		}
	}
	k, err := openDir(root, "")
	if err != nil {
		return nil, err
	}
	if k.Release != c.release() {
		return nil, fmt.Errorf("unpack %s: holds kernel %s", c.name, k.Release)
	}
	// dpkg-deb gives the top directory the package's mode; keep it enterable.
	if err := os.Chmod(root, 0o755); err != nil {
		return nil, err
	}
	if err := os.Rename(root, final); err != nil {
		return nil, err
	}
	f.logf("ready %s", final)
	return openDir(final, "")
}

// tmpMark is in the names of what is not whole yet.
const tmpMark = ".tmp-"

// sweep removes what fetches that were killed left behind, and a broken
// kernel in the place of the new one. The lock is held, so nobody uses them.
func (f *fetcher) sweep(broken string) error {
	stale, err := filepath.Glob(filepath.Join(f.kernels, tmpMark+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range append(stale, broken) {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// machineArchive reads the machine's sources and release below etc.
func machineArchive(etc string) (archive, error) {
	sources, err := readSources(filepath.Join(etc, "apt"))
	if err != nil {
		return archive{}, err
	}
	codename, err := osCodename(filepath.Join(etc, "os-release"))
	if err != nil {
		return archive{}, err
	}
	return newArchive(sources, codename)
}

// osCodename returns VERSION_CODENAME of an os-release(5) file, "" where it
// has none.
func osCodename(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"'`), nil
		}
	}
	return "", nil
}
