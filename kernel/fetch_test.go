package kernel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeTool stands in for apt-get, apt-cache and dpkg-deb. The archive it
// plays has 6.1 kernels in the machine's suite, 6.12 in backports and a split
// 7.2 in sid; what apt is asked to do goes into $FAKE/log.
const fakeTool = `#!/bin/sh
set -eu
FLAVOUR=cloud-%[1]s
tool=${0##*/}
if [ "$tool" != dpkg-deb ]; then
	[ "$1" = -c ]
	sources=${2%%/*}/guestinit.sources
	shift 2
fi
[ "${1:-}" != -q ] || shift
echo "$tool $*" >>"$FAKE/log"
record() { printf 'Package: %%s\nVersion: %%s\nFilename: pool/x.deb\nDepends: kmod, %%s\n\n' "$@"; }
case "$tool $1" in
"apt-get update")
	[ ! -e "$FAKE/offline" ] || { echo "E: no network" >&2; exit 100; } ;;
"apt-cache pkgnames")
	echo linux-image-$FLAVOUR
	echo linux-image-6.1.0-50-$FLAVOUR-unsigned
	echo linux-image-6.1.0-9-$FLAVOUR
	echo linux-image-6.1.0-50-$FLAVOUR
	! grep -q backports "$sources" || echo linux-image-6.12.95-$FLAVOUR
	! grep -q 'Suites: sid' "$sources" || echo linux-image-7.2.13-$FLAVOUR ;;
"apt-cache show")
	shift
	for p; do case $p in
		*-6.1.0-9-*) record $p 6.1.9-1 x ;;
		*-6.1.0-50-*) record $p 6.1.176-1 x ;;
		*-6.12.*) record $p 6.12.95-1 x ;;
		*-7.2.*) record $p 7.2.13-1 "linux-base-7.2.13-$FLAVOUR (= 7.2.13-1), linux-binary-7.2.13-$FLAVOUR (= 7.2.13-1), linux-modules-7.2.13-$FLAVOUR" ;;
	esac; done ;;
"apt-get download")
	shift
	for p; do echo "$p" >"${p%%%%=*}_1.deb"; done
	[ ! -e "$FAKE/slow" ] || exec sleep 60 ;;
"dpkg-deb -x")
	deb=${2##*/} root=$3
	release=${deb#linux-*-}; release=${release%%%%_*}
	case $deb in
	linux-binary-*) mkdir -p "$root/usr/lib/modules/$release"; cp "$FAKE/$release" "$root/usr/lib/modules/$release/vmlinuz" ;;
	linux-modules-*) mkdir -p "$root/usr/lib/modules/$release/kernel" ;;
	linux-image-7*|linux-base-*) mkdir -p "$root" ;;
	*) mkdir -p "$root/boot" "$root/lib/modules/$release/kernel"; cp "$FAKE/$release" "$root/boot/vmlinuz-$release" ;;
	esac
	chmod 700 "$root" ;;
*) echo "unexpected: $tool $*" >&2; exit 1 ;;
esac
`

type fakeArchive struct {
	dir string
	etc string
}

func newFakeArchive(t *testing.T) *fakeArchive {
	t.Helper()
	f := &fakeArchive{dir: t.TempDir(), etc: t.TempDir()}
	write := func(name, text string, mode os.FileMode) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		write(filepath.Join(f.dir, "bin", tool), fmt.Sprintf(fakeTool, runtime.GOARCH), 0o755)
	}
	for _, v := range []string{"6.1.0-9", "6.1.0-50", "6.12.95", "7.2.13"} {
		release := v + "-cloud-" + runtime.GOARCH
		write(filepath.Join(f.dir, release), string(makeBzImage(release, []byte("payload"))), 0o644)
	}
	write(filepath.Join(f.etc, "apt/sources.list.d/debian.sources"), deb822Sources, 0o644)
	write(filepath.Join(f.etc, "os-release"), "ID=debian\nVERSION_CODENAME=bookworm\n", 0o644)
	t.Setenv("FAKE", f.dir)
	t.Setenv("PATH", filepath.Join(f.dir, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("GUESTINIT_CACHE", filepath.Join(f.dir, "cache"))
	return f
}

func (f *fakeArchive) fetch(ctx context.Context, version string) (*Kernel, error) {
	x := &fetcher{version: version, progress: &bytes.Buffer{}, etc: f.etc}
	return x.fetch(ctx)
}

func (f *fakeArchive) log(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(f.dir, "log"))
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func (f *fakeArchive) touch(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFetchChooses(t *testing.T) {
	flavour := "-cloud-" + runtime.GOARCH
	for _, tt := range []struct {
		version, want string
		updates       int
		err           string
	}{
		{"6.1", "6.1.0-50", 1, ""},
		{"6.1.0-9", "6.1.0-9", 1, ""},
		{"6.1.9-1", "6.1.0-9", 1, ""},
		{"linux-image-6.1.0-9" + flavour, "6.1.0-9", 1, ""},
		{"", "6.12.95", 2, ""},
		{"6.12", "6.12.95", 2, ""},
		{"7.2", "7.2.13", 3, ""},
		{"8.0", "", 3, "no cloud-" + runtime.GOARCH + " kernel matches in bookworm, bookworm-updates, bookworm-security, bookworm-backports, sid"},
	} {
		t.Run("version "+tt.version, func(t *testing.T) {
			f := newFakeArchive(t)
			k, err := f.fetch(t.Context(), tt.version)
			if got := strings.Count(strings.Join(f.log(t), "\n"), "apt-get update"); got != tt.updates {
				t.Errorf("%d updates, want %d", got, tt.updates)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(f.dir, "cache/kernels", tt.want+flavour)
			if k.Release != tt.want+flavour || k.Dir != dir || filepath.Base(k.Modules) != k.Release {
				t.Errorf("got %+v", k)
			}
			if st := mustStat(t, dir); st.Mode().Perm() != 0o755 {
				t.Errorf("%s has mode %v", dir, st.Mode())
			}
			f.wantClean(t)
			// A second fetch of the same asks nobody.
			if again, err := f.fetch(t.Context(), tt.want); err != nil || !reflect.DeepEqual(again, k) {
				t.Errorf("again: %+v, %v", again, err)
			}
			if log := f.log(t); log[0] != "" {
				t.Errorf("second fetch ran %q", log)
			}
		})
	}
}

// wantClean checks that no temporary directory is left in the cache.
func (f *fakeArchive) wantClean(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(f.dir, "cache/kernels", tmpMark+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFetchOffline(t *testing.T) {
	f := newFakeArchive(t)
	f.touch(t, "offline")
	_, err := f.fetch(t.Context(), "6.1")
	if err == nil || !strings.Contains(err.Error(), "E: no network") {
		t.Errorf("error %v", err)
	}
	if got, err := List(); err != nil || len(got) != 0 {
		t.Errorf("list: %v, %v", got, err)
	}
}

// What is no version is refused before the archive is asked.
func TestFetchNoVersion(t *testing.T) {
	f := newFakeArchive(t)
	for _, version := range []string{"latest", "../6.1", "6.1*", "-x", "linux-image-amd64", "6.1 6.12", "6.1/x"} {
		if _, err := Fetch(t.Context(), version, nil); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), version) {
			t.Errorf("%q: %v", version, err)
		}
	}
	if log := strings.Join(f.log(t), ""); log != "" {
		t.Errorf("apt was asked: %s", log)
	}
}

func TestFetchInterrupted(t *testing.T) {
	f := newFakeArchive(t)
	f.touch(t, "slow")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := f.fetch(ctx, "6.1")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	f.wantClean(t)
	// What a killed fetch leaves is swept by the next.
	stale := filepath.Join(f.dir, "cache/kernels", tmpMark+"1/root")
	if err := os.MkdirAll(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(f.dir, "slow")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.fetch(t.Context(), "6.1"); err != nil {
		t.Error(err)
	}
	f.wantClean(t)
}

func TestFetchTwiceAtOnce(t *testing.T) {
	f := newFakeArchive(t)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, errs[i] = f.fetch(t.Context(), "6.1") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if got := strings.Count(strings.Join(f.log(t), "\n"), "apt-get download"); got != 1 {
		t.Errorf("%d downloads, want 1", got)
	}
}

func TestFetchWithoutApt(t *testing.T) {
	f := newFakeArchive(t)
	t.Setenv("PATH", t.TempDir())
	_, err := f.fetch(t.Context(), "6.1")
	if err == nil || !strings.Contains(err.Error(), "needs a Debian-like host") {
		t.Errorf("error %v", err)
	}
}

// aptRecords is what apt-cache show prints for a kernel of bookworm, one of
// sid, and one that is installed from elsewhere.
const aptRecords = `Package: linux-image-6.1.0-50-cloud-amd64
Source: linux-signed-amd64 (6.1.176+1)
Version: 6.1.176-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description-en: Linux 6.1 for x86-64 cloud
 The Linux kernel 6.1 and modules for use on cloud platforms.
Filename: pool/main/l/linux-signed-amd64/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb

Package: linux-image-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Filename: pool/main/l/linux-signed-amd64/linux-image-7.2.13+deb14-cloud-amd64_7.2.13-1_amd64.deb

Package: linux-image-6.1.0-1-cloud-amd64
Status: install ok installed
Version: 6.1.4-1
`

func TestParseCandidates(t *testing.T) {
	got, err := parseCandidates([]byte(aptRecords))
	if err != nil {
		t.Fatal(err)
	}
	var parts [][]string
	for _, c := range got {
		parts = append(parts, c.parts())
	}
	want := [][]string{{
		"linux-image-7.2.13+deb14-cloud-amd64=7.2.13-1",
		"linux-base-7.2.13+deb14-cloud-amd64=7.2.13-1",
		"linux-binary-7.2.13+deb14-cloud-amd64=7.2.13-1",
		"linux-modules-7.2.13+deb14-cloud-amd64=7.2.13-1",
	}, {"linux-image-6.1.0-50-cloud-amd64=6.1.176-1"}}
	if !reflect.DeepEqual(parts, want) {
		t.Errorf("got %q\nwant %q", parts, want)
	}
}

// TestFetchReal fetches through apt into an empty cache.
func TestFetchReal(t *testing.T) {
	if os.Getenv("GUESTINIT_TEST_FETCH") != "1" {
		t.Skip("downloads 100 MB from the Debian archive; set GUESTINIT_TEST_FETCH=1")
	}
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	for _, version := range []string{"6.1", "", "7.2"} {
		var progress bytes.Buffer
		k, err := Fetch(t.Context(), version, &progress)
		if err != nil {
			t.Fatalf("version %q: %v\n%s", version, err, &progress)
		}
		if _, err := k.Vmlinux(); err != nil {
			t.Error(err)
		}
		if !isModulesDir(k.Modules) || !matchesVersion(k.Release, cmp.Or(version, defaultLine)) {
			t.Errorf("version %q: %+v", version, k)
		}
	}
}
