package initramfs

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"
)

// entry is an archive entry as tests compare it.
type entry struct {
	mode       uint64
	size       uint64
	major, min uint64
	text       string
}

// readArchive reads an archive; names come in archive order.
func readArchive(t testing.TB, data []byte) (names []string, entries map[string]entry) {
	t.Helper()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	entries = make(map[string]entry)
	for _, r := range records {
		text, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := entries[r.Name]; ok {
			t.Errorf("%s stands twice in the archive", r.Name)
		}
		names = append(names, r.Name)
		entries[r.Name] = entry{r.Mode, r.FileSize, r.Rmajor, r.Rminor, string(text)}
	}
	return names, entries
}

// someOptions are options of every kind.
func someOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "tree/b/deep.txt"), []byte("deep"), 0o640)
	writeFile(t, filepath.Join(dir, "tree/a.txt"), []byte("a"), 0o600)
	if err := os.Symlink("b/deep.txt", filepath.Join(dir, "tree/link")); err != nil {
		t.Fatal(err)
	}
	return Options{
		Init:   makeInit(t),
		Kernel: moduleTree(t, nil),
		Files: []File{
			{Src: writeFile(t, filepath.Join(dir, "script.sh"), []byte("#!/bin/sh\n"), 0o755), Dst: "opt/script"},
			{Src: filepath.Join(dir, "tree"), Dst: "/data/"},
		},
		Spec: []byte(`{"version":1}`),
	}
}

func mustBuild(t *testing.T, o Options) ([]byte, *Manifest) {
	t.Helper()
	var b bytes.Buffer
	m, err := Build(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bytes != int64(b.Len()) {
		t.Errorf("manifest says %d bytes, written were %d", m.Bytes, b.Len())
	}
	return b.Bytes(), m
}

func TestBuildContent(t *testing.T) {
	o := someOptions(t)
	image, m := mustBuild(t, o)
	names, entries := readArchive(t, image)
	ring := "lib/modules/6.99.1-test/kernel/virtio/virtio_ring.ko"
	virtio := string(makeModule("depends=virtio_ring"))
	for name, want := range map[string]entry{
		"dev":                                   {mode: 0o40755},
		"dev/console":                           {mode: 0o20600, major: 5, min: 1},
		"dev/null":                              {mode: 0o20666, major: 1, min: 3},
		"init":                                  {mode: 0o100755, text: string(makeELF(elf.ET_EXEC, ""))},
		"bbin/guestinit":                        {mode: 0o120777, text: "/init"},
		"opt/script":                            {mode: 0o100755, text: "#!/bin/sh\n"},
		"data":                                  {mode: 0o40755},
		"data/a.txt":                            {mode: 0o100600, text: "a"},
		"data/b/deep.txt":                       {mode: 0o100640, text: "deep"},
		"data/link":                             {mode: 0o120777, text: "b/deep.txt"},
		"etc/guestinit/spec.json":               {mode: 0o100644, text: `{"version":1}`},
		"etc/guestinit/complete":                {mode: 0o100644, text: completeText},
		ring:                                    {mode: 0o100644, text: string(makeModule("depends="))},
		filepath.Dir(ring) + "/virtio.ko":       {mode: 0o100644, text: virtio},
		filepath.Dir(ring) + "/virtio_pci.ko":   {mode: 0o100644, text: entries[filepath.Dir(ring)+"/virtio_pci.ko"].text},
		"lib/modules/6.99.1-test/kernel/virtio": {mode: 0o40755},
	} {
		want.size = uint64(len(want.text))
		if got, ok := entries[name]; !ok || got != want {
			t.Errorf("%s: got %.120v, want %.120v", name, got, want)
		}
	}
	if pci := entries[filepath.Dir(ring)+"/virtio_pci.ko"].text; !strings.HasPrefix(pci, elf.ELFMAG) {
		t.Errorf("virtio_pci.ko is not unpacked: % x", pci[:4])
	}
	if last := names[len(names)-1]; "/"+last != CompletePath {
		t.Errorf("last entry is %s, want %s", last, CompletePath)
	}
	wantParentsFirst(t, names)
	var list strings.Builder
	for _, mod := range m.Modules {
		fmt.Fprintf(&list, "%s %s\n", mod.Feature, mod.Path)
		if _, ok := entries[mod.Path[1:]]; !ok {
			t.Errorf("%s is listed but not there", mod.Path)
		}
	}
	if got := entries["etc/guestinit/modules"].text; got != list.String() || got == "" {
		t.Errorf("module list %q\nwant %q", got, list.String())
	}
	if len(m.Paths) != len(names) || m.Unpacked != m.Bytes {
		t.Errorf("manifest has %d paths for %d entries, %d and %d bytes", len(m.Paths), len(names), m.Unpacked, m.Bytes)
	}
}

// wantParentsFirst checks the order that the kernel and the check for cut
// images need.
func wantParentsFirst(t *testing.T, names []string) {
	t.Helper()
	list, init, lib := slices.Index(names, ModulesPath[1:]), slices.Index(names, "init"), slices.Index(names, "lib")
	if list < 0 || init < list || lib >= 0 && lib < init {
		t.Errorf("order is list %d, init %d, lib %d", list, init, lib)
	}
	for i, name := range names {
		if dir := filepath.Dir(name); dir != "." && !slices.Contains(names[:i], dir) {
			t.Errorf("%s comes before its directory", name)
		}
	}
}

func TestBuildReproducible(t *testing.T) {
	o := someOptions(t)
	first, _ := mustBuild(t, o)
	for _, f := range []string{o.Init, o.Files[0].Src} {
		if err := os.Chtimes(f, time.Unix(1, 0), time.Unix(2, 0)); err != nil {
			t.Fatal(err)
		}
	}
	again := o
	again.Init = filepath.Join(t.TempDir(), "other-name")
	data, err := os.ReadFile(o.Init)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, again.Init, data, 0o777)
	for _, c := range []string{"none", "gzip", "lz4", "zstd"} {
		o.Compression, again.Compression = c, c
		a, _ := mustBuild(t, o)
		b, _ := mustBuild(t, again)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: same inputs, different bytes", c)
		}
		if c == "none" && !bytes.Equal(a, first) {
			t.Error("the bytes depend on times")
		}
	}
}

func TestBuildCompression(t *testing.T) {
	o := someOptions(t)
	want, _ := mustBuild(t, o)
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"lz4":  func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil },
		"zstd": func(r io.Reader) (io.Reader, error) {
			z, err := zstd.NewReader(r)
			if err != nil {
				return nil, err
			}
			return z.IOReadCloser(), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			o.Compression = name
			packed, m := mustBuild(t, o)
			if m.Bytes >= m.Unpacked || m.Unpacked != int64(len(want)) {
				t.Errorf("%d bytes packed to %d, archive has %d", m.Unpacked, m.Bytes, len(want))
			}
			r, err := open(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("unpacked to %d bytes, want %d equal ones; %v", len(got), len(want), err)
			}
		})
	}
}

// TestBuildCpio has GNU cpio read an image.
func TestBuildCpio(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed; try: apt install cpio")
	}
	image, m := mustBuild(t, someOptions(t))
	cmd := exec.Command("cpio", "-itv", "--quiet")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Stdin = bytes.NewReader(image)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(m.Paths) {
		t.Errorf("cpio lists %d entries, manifest %d:\n%s", len(lines), len(m.Paths), out)
	}
	for i, line := range lines[:min(len(lines), len(m.Paths))] {
		name, _, _ := strings.Cut(line, " -> ")
		if !strings.HasSuffix(name, " "+m.Paths[i][1:]) || !strings.Contains(line, " Jan  1  1970 ") {
			t.Errorf("entry %d is %q, want %s of 1970", i, line, m.Paths[i])
		}
	}
	for _, want := range []string{
		"crw-------   1 root     root       5,   1 Jan  1  1970 dev/console",
		"lrwxrwxrwx   1 root     root            5 Jan  1  1970 bbin/guestinit -> /init",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
}

func TestBuildWithoutModules(t *testing.T) {
	image, m := mustBuild(t, Options{Init: makeInit(t)})
	_, entries := readArchive(t, image)
	if e, ok := entries["etc/guestinit/modules"]; !ok || e.size != 0 {
		t.Errorf("module list: %+v, %v; want an empty one", e, ok)
	}
	if len(m.Notes) != 1 || !strings.Contains(m.Notes[0], "built into the kernel") {
		t.Errorf("notes %q", m.Notes)
	}
	if _, ok := entries["etc/guestinit/spec.json"]; ok {
		t.Error("a spec that nobody gave")
	}
}

func TestBuildErrors(t *testing.T) {
	dir := t.TempDir()
	text := writeFile(t, filepath.Join(dir, "text"), []byte("hello"), 0o644)
	other := writeFile(t, filepath.Join(dir, "other"), []byte("hello"), 0o644)
	dynamic := writeFile(t, filepath.Join(dir, "dynamic"), makeDynamic("/lib64/ld.so", "", "libc.so.6"), 0o755)
	object := writeFile(t, filepath.Join(dir, "object"), makeModule(), 0o755)
	lost := writeFile(t, filepath.Join(dir, "lost"), makeDynamic("", "", "libnowhere.so.9"), 0o755)
	static := makeInit(t)
	for _, tt := range []struct {
		name string
		o    Options
		err  string
	}{
		{"no init", Options{}, "no init binary"},
		{"missing init", Options{Init: filepath.Join(dir, "nothing")}, "no such file"},
		{"script as init", Options{Init: text}, "not an ELF program"},
		{"dynamic init", Options{Init: dynamic}, "dynamically linked; build it with CGO_ENABLED=0"},
		{"object as init", Options{Init: object}, "not an ELF program"},
		{"missing file", Options{Init: static, Files: []File{{Src: filepath.Join(dir, "nothing")}}}, "no such file"},
		{"device", Options{Init: static, Files: []File{{Src: "/dev/null"}}}, "not a regular file"},
		{"in place of init", Options{Init: static, Files: []File{{Src: text, Dst: "/init"}}}, "add /init from " + text + ": already there, from " + static},
		{"in place of a file", Options{Init: static, Files: []File{{text, "/x"}, {other, "x"}}}, "add /x from " + other + ": already there, from " + text},
		{"in place of the end", Options{Init: static, Files: []File{{text, CompletePath}}}, "add /etc/guestinit/complete"},
		{"below a file", Options{Init: static, Files: []File{{text, "/x"}, {other, "/x/y"}}}, "/x is not a directory"},
		{"in place of a directory", Options{Init: static, Files: []File{{text, "/etc"}}}, "already there, from directory"},
		{"root", Options{Init: static, Files: []File{{text, "/.."}}}, "not a usable path"},
		{"end of archive", Options{Init: static, Files: []File{{text, cpio.Trailer}}}, "not a usable path"},
		{"library missing", Options{Init: static, Files: []File{{Src: lost, Dst: "/x"}}}, "libnowhere.so.9 not found"},
		{"compression", Options{Init: static, Compression: "rar"}, `compression "rar" is not known`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(io.Discard, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	if _, err := Build(&failingWriter{left: 1000}, Options{Init: static}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("full disk: %v", err)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, fmt.Errorf("disk full")
	}
	return len(p), nil
}
