package initramfs

import (
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sysroot writes a made-up system with libraries in all kinds of places.
func sysroot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	other := makeDynamic("", "")
	other[18] = 40 // EM_ARM: a library of the right name for another machine
	for name, data := range map[string][]byte{
		"lib64/ld.so":                      makeDynamic("", ""),
		"lib/x86_64-linux-gnu/libc.so.6":   makeDynamic("", "", "ld.so"),
		"lib/x86_64-linux-gnu/libwrong.so": other,
		"usr/lib/libwrong.so":              makeDynamic("", "", "libc.so.6"),
		"opt/vendor/libconf.so":            makeDynamic("", "", "libc.so.6"),
		"opt/app/lib/libown.so":            makeDynamic("", "", "libc.so.6", "libconf.so"),
		"opt/fixed/libfixed.so":            makeDynamic("", ""),
		"etc/ld.so.conf":                   []byte("# comment\ninclude ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\n"),
		"etc/ld.so.conf.d/vendor.conf":     []byte("/opt/vendor # tail\nrelative\n"),
		"opt/app/bin/app":                  makeDynamic("/lib64/ld.so", "$ORIGIN/../lib:/opt/fixed", "libown.so", "libfixed.so", "libwrong.so", "libc.so.6"),
		"opt/app/bin/alone":                makeDynamic("", ""),
		"opt/app/bin/lost":                 makeDynamic("/lib64/ld.so", "", "libabsent.so.1"),
		"opt/app/bin/script":               []byte("#!/bin/sh\n"),
		"opt/app/bin/short":                []byte("x"),
		"opt/app/bin/object":               makeModule(),
		"opt/app/bin/broken":               []byte("\x7fELF\x02\x01\x01 and then nonsense"),
	} {
		writeFile(t, filepath.Join(root, name), data, 0o755)
	}
	return root
}

func TestLinkerClosure(t *testing.T) {
	root := sysroot(t)
	l := newLinker(root)
	if want := []string{"/opt/vendor"}; !slices.Equal(slices.Compact(slices.Clone(l.conf)), want) {
		t.Errorf("ld.so.conf gives %q, want %q", l.conf, want)
	}
	for _, tt := range []struct {
		program, dst string
		want         []string // source below root, destination where it differs
		err          string
	}{
		{"app", "/bin/app", []string{
			"/lib64/ld.so", "/opt/app/lib/libown.so /lib/libown.so", "/opt/fixed/libfixed.so",
			"/usr/lib/libwrong.so", "/lib/x86_64-linux-gnu/libc.so.6", "/opt/vendor/libconf.so /lib/x86_64-linux-gnu/libconf.so",
		}, ""},
		{"alone", "/x", nil, ""},
		{"script", "/x", nil, ""},
		{"short", "/x", nil, ""},
		{"object", "/x", nil, ""},
		{"lost", "/x", nil, "libabsent.so.1 not found"},
		{"broken", "/x", nil, "read ELF file"},
	} {
		t.Run(tt.program, func(t *testing.T) {
			got, err := l.closure(File{Src: filepath.Join(root, "opt/app/bin", tt.program), Dst: tt.dst})
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			var lines []string
			for _, f := range got {
				line := strings.TrimPrefix(f.Src, root)
				if line != f.Dst {
					line += " " + f.Dst
				}
				lines = append(lines, line)
			}
			if !reflect.DeepEqual(lines, tt.want) {
				t.Errorf("got  %q\nwant %q", lines, tt.want)
			}
		})
	}
}

// TestLinkerReal compares with what the host's own loader says.
func TestLinkerReal(t *testing.T) {
	out, err := exec.Command("ldd", "/bin/sh").Output()
	if err != nil {
		t.Skipf("ldd /bin/sh: %v; run where /bin/sh is dynamically linked", err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllSubmatch(out, -1) {
		want = append(want, string(m[1]))
	}
	got, err := newLinker("/").closure(File{Src: "/bin/sh", Dst: "/bin/sh"})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range got {
		paths = append(paths, f.Src)
	}
	slices.Sort(want)
	slices.Sort(paths)
	if len(want) == 0 || !slices.Equal(paths, want) {
		t.Errorf("got %q\nldd says %q", paths, want)
	}
	image, _ := mustBuild(t, Options{Init: makeInit(t), Files: []File{{Src: "/bin/sh", Dst: "/a/sh"}, {Src: "/bin/sh", Dst: "/b/sh"}}})
	if names, _ := readArchive(t, image); !slices.Contains(names, want[0][1:]) {
		t.Errorf("no %s in %q", want[0], names)
	}
}
