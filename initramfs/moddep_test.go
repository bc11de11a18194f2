package initramfs

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseModulesDep(t *testing.T) {
	const text = `kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz
# comment
kernel/drivers/virtio/virtio_ring.ko.xz:

kernel/drivers/char/hw_random/virtio-rng.ko: kernel/a/rng-core.ko.zst  kernel/b/x.ko.gz kernel/b/x.ko.gz
`
	got, err := parseModulesDep(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]moduleFile{
		"virtio":      {path: "kernel/drivers/virtio/virtio.ko.xz", deps: []string{"virtio_ring"}},
		"virtio_ring": {path: "kernel/drivers/virtio/virtio_ring.ko.xz", deps: []string{}},
		"virtio_rng":  {path: "kernel/drivers/char/hw_random/virtio-rng.ko", deps: []string{"rng_core", "x"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"kernel/a.ko\n", "kernel/readme: \n", strings.Repeat("x", maxMetaLine+1)} {
		if _, err := parseModulesDep(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q: no error", bad)
		}
	}
}

func FuzzModulesDep(f *testing.F) {
	f.Add("kernel/a-b.ko: kernel/c.ko.xz kernel/d.ko\n")
	f.Add("x.ko:\n#\ny.ko: z\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseModulesDep(strings.NewReader(text))
		if err != nil {
			return
		}
		for name, m := range got {
			if name == "" || strings.Contains(name, "-") || nameOfPath(m.path) != name || m.deps == nil {
				t.Errorf("%q: %+v", name, m)
			}
			for _, d := range m.deps {
				if d == "" || strings.ContainsAny(d, "-/") {
					t.Errorf("%q needs %q", name, d)
				}
			}
		}
	})
}

func TestIndexFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"kernel/plain.ko", "kernel/packed.ko.xz", "updates/extra-mod.ko.zst", "kernel/moved/moved.ko"} {
		writeFile(t, filepath.Join(dir, name), []byte("x"), 0o644)
	}
	writeFile(t, filepath.Join(dir, "modules.order"), []byte("kernel/plain.ko\nkernel/packed.ko\nkernel/gone.ko\nkernel/moved.ko\n"), 0o644)
	x, err := openIndex(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path string }{
		{"plain", "kernel/plain.ko"},
		{"packed", "kernel/packed.ko.xz"},
		{"gone", ""},
		{"extra_mod", "updates/extra-mod.ko.zst"},
		{"moved", "kernel/moved/moved.ko"},
		{"never", ""},
	} {
		m, ok, err := x.find(tt.name)
		if err != nil || ok != (tt.path != "") || m.path != tt.path {
			t.Errorf("find %s: %+v, %v, %v; want %q", tt.name, m, ok, err, tt.path)
		}
	}
}
