package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// packedImage is a bzImage with testdata/vmlinux inside, compressed.
func packedImage(t testing.TB, compression string) []byte {
	t.Helper()
	payload := readTestdata(t, "payload."+compression)
	if compression != "gzip" {
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(readTestdata(t, "vmlinux"))))
	}
	return makeBzImage("6.99.1-test", payload)
}

func writeImage(t testing.TB, data []byte) *Kernel {
	t.Helper()
	name := filepath.Join(t.TempDir(), "vmlinuz-6.99.1-test")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return &Kernel{Image: name, Release: "6.99.1-test"}
}

func TestVmlinuxCompressions(t *testing.T) {
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	want := readTestdata(t, "vmlinux")
	for _, c := range []string{"gzip", "xz", "zstd", "lz4", "bzip2", "lzma"} {
		t.Run(c, func(t *testing.T) {
			if c == "lzma" {
				if _, err := exec.LookPath("xz"); err != nil {
					t.Skip("xz is not installed; try: apt install xz-utils")
				}
			}
			path, err := writeImage(t, packedImage(t, c)).Vmlinux()
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("unpacked to %d bytes, want %d equal ones; %v", len(got), len(want), err)
			}
		})
	}
}

func TestVmlinuxErrors(t *testing.T) {
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	elf := readTestdata(t, "vmlinux")
	noNote := bytes.Replace(elf, []byte("Xen\x00"), []byte("Xyz\x00"), -1)
	good := packedImage(t, "zstd")
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1000] ^= 0x55
	wrongSize := bytes.Clone(good)
	wrongSize[len(wrongSize)-4]++
	for _, tt := range []struct {
		name string
		data []byte
		is   error
		text string
	}{
		{"unknown method", makeBzImage("6.99.1-test", []byte("\x01\x02\x03\x04 what is this")), ErrCompression, "01 02 03 04"},
		{"damaged payload", damaged, nil, "zstd payload"},
		{"wrong length", wrongSize, nil, "unpacked to"},
		{"absurd length", makeBzImage("6.99.1-test", []byte("\x28\xb5\x2f\xfd\xff\xff\xff\xff")), nil, "over the limit"},
		{"vmlinux without the note", noNote, ErrNoPVH, "PVH"},
		{"cut vmlinux", elf[:len(elf)/2], errTruncated, "segment"},
		{"not a kernel", []byte("hello"), nil, "vmlinux"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := writeImage(t, tt.data)
			path, err := k.Vmlinux()
			if err == nil {
				t.Fatalf("no error, %s", path)
			}
			if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), k.Image) {
				t.Errorf("error %q", err)
			}
			left, err := os.ReadDir(filepath.Dir(k.Image))
			if err != nil || len(left) != 1 {
				t.Errorf("left behind beside the image: %v, %v", left, err)
			}
		})
	}
}

func TestVmlinuxToolMissing(t *testing.T) {
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	payload := binary.LittleEndian.AppendUint32([]byte("\x89LZO\x00\r\n\x1a\n"), 100)
	_, err := writeImage(t, makeBzImage("6.99.1-test", payload)).Vmlinux()
	if !errors.Is(err, ErrCompression) || !strings.Contains(err.Error(), "install lzop") {
		t.Errorf("error %v", err)
	}
}

func TestVmlinuxGiven(t *testing.T) {
	k := &Kernel{Image: "testdata/vmlinux"}
	if path, err := k.Vmlinux(); err != nil || path != k.Image {
		t.Errorf("got %q, %v", path, err)
	}
}

func TestVmlinuxCached(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("GUESTINIT_CACHE", cache)
	k := writeImage(t, packedImage(t, "zstd"))
	first := mustVmlinux(t, k)
	if want := k.Image + elfSuffix; first != want {
		t.Fatalf("unpacked to %s, want %s", first, want)
	}
	st1 := mustStat(t, first)
	if mustVmlinux(t, k); !os.SameFile(st1, mustStat(t, first)) {
		t.Error("unpacked again though nothing changed")
	}
	// A kernel built anew under the same name.
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(k.Image, later, later); err != nil {
		t.Fatal(err)
	}
	if mustVmlinux(t, k); os.SameFile(st1, mustStat(t, first)) {
		t.Error("not unpacked again though the bzImage changed")
	}
	// A torn copy.
	if err := os.Truncate(first, 100); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(first, later, later); err != nil {
		t.Fatal(err)
	}
	mustVmlinux(t, k)
	if st := mustStat(t, first); st.Size() != int64(len(readTestdata(t, "vmlinux"))) {
		t.Errorf("torn copy of %d bytes used", st.Size())
	}
	// Where the place beside the image is taken, the cache serves.
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(first, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := mustVmlinux(t, k); !strings.HasPrefix(got, filepath.Join(cache, "vmlinux")+"/") {
		t.Errorf("unpacked to %s, want the cache", got)
	}
}

// TestVmlinuxSweeps finds what killed launchers left, what another one writes at this
// moment, and a file of somebody else.
func TestVmlinuxSweeps(t *testing.T) {
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	k := writeImage(t, packedImage(t, "zstd"))
	left, busy, other := k.Image+elfSuffix+".tmp-1", k.Image+elfSuffix+".tmp-2", k.Image+".tmp-3"
	old := time.Now().Add(-2 * staleAge)
	for _, name := range []string{left, busy, other} {
		if err := os.WriteFile(name, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		if name == busy {
			continue
		}
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	path, err := k.Vmlinux()
	if err != nil || path != k.Image+elfSuffix {
		t.Fatalf("%s, %v", path, err)
	}
	var got []string
	entries, err := os.ReadDir(filepath.Dir(k.Image))
	for _, e := range entries {
		got = append(got, filepath.Join(filepath.Dir(k.Image), e.Name()))
	}
	want := []string{k.Image, other, path, busy}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("there is %q, %v; want %q", got, err, want)
	}
}

func TestVmlinuxPlaces(t *testing.T) {
	t.Setenv("GUESTINIT_CACHE", "/cache")
	places, err := vmlinuxPlaces("/usr/bin/env")
	if err != nil || len(places) != 1 || !strings.HasPrefix(places[0], "/cache/vmlinux/") {
		t.Errorf("system directories are to be left alone: %v, %v", places, err)
	}
}

func mustVmlinux(t *testing.T, k *Kernel) string {
	t.Helper()
	path, err := k.Vmlinux()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func mustStat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestVmlinuxReal unpacks the distribution kernels that are in the cache.
func TestVmlinuxReal(t *testing.T) {
	for _, line := range []string{"6.1", "6.12", "7.2"} {
		t.Run(line, func(t *testing.T) {
			k, err := cached(line)
			if err != nil {
				t.Fatal(err)
			}
			if k == nil {
				t.Skipf("no kernel %s in the cache; try: guestinit kernel fetch %s", line, line)
			}
			out := unpackReal(t, k)
			if err := checkPVH(out); err != nil {
				t.Error(err)
			}
			f, err := os.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := scanRelease(f); err != nil || got != k.Release {
				t.Errorf("release inside is %q, %v; want %q", got, err, k.Release)
			}
		})
	}
}

func unpackReal(t *testing.T, k *Kernel) string {
	t.Helper()
	f, err := os.Open(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := readSetupHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "vmlinux")
	x := extraction{image: f, header: h, mtime: time.Unix(1, 0)}
	if err := x.write(out); err != nil {
		t.Fatal(err)
	}
	return out
}

func FuzzNotes(f *testing.F) {
	elf := readTestdata(f, "vmlinux")
	f.Add(elf[64+2*56 : 64+2*56+44])
	f.Add([]byte("\x04\x00\x00\x00\xff\xff\xff\xff\x12\x00\x00\x00Xen\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if hasNote(bytes.NewReader(data), "Xen", xenPhys32Entry) && !bytes.Contains(data, []byte("Xen")) {
			t.Error("note found where there is none")
		}
	})
}
