package initramfs

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestReadModinfo(t *testing.T) {
	for _, tt := range []struct {
		name string
		info []string
		want modinfo
	}{
		{"none", nil, modinfo{}},
		{"no dependencies", []string{"license=GPL", "depends=", "name=virtio_ring"}, modinfo{name: "virtio_ring"}},
		{"several", []string{"depends=virtio-ring,virtio,,virtio", "name=virtio-pci"},
			modinfo{name: "virtio_pci", depends: []string{"virtio_ring", "virtio"}}},
		{"soft", []string{"softdep=pre: crc32c sha-256 post: late", "softdep=post: x pre: y"},
			modinfo{softPre: []string{"crc32c", "sha_256", "y"}}},
		{"soft without a side", []string{"softdep=crc32c"}, modinfo{}},
		{"junk between", []string{"no value", "", "=x", "depends=a=b"}, modinfo{depends: []string{"a=b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readModinfo(makeModule(tt.info...))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	if _, err := readModinfo(makeDynamic("", "", "libc.so.6")); err == nil || !strings.Contains(err.Error(), ".modinfo") {
		t.Errorf("no section: %v", err)
	}
	if _, err := readModinfo([]byte("\x7fELF and no more")); err == nil {
		t.Error("cut ELF file: no error")
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add([]byte("depends=a,b-c\x00softdep=pre: d post: e\x00name=x\x00"))
	f.Add([]byte("depends=\x00depends=,,\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := parseModinfo(data)
		for _, list := range [][]string{m.depends, m.softPre} {
			for i, name := range list {
				if name == "" || strings.ContainsAny(name, "-\x00") || slices.Contains(list[:i], name) {
					t.Errorf("dependencies %q", list)
				}
			}
		}
		if again := parseModinfo(append(data, 0)); !reflect.DeepEqual(again, m) {
			t.Errorf("a final NUL changes %+v into %+v", m, again)
		}
	})
}

func FuzzModule(f *testing.F) {
	f.Add(makeModule("depends=a,b", "name=x"))
	f.Add(makeModule())
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := readModinfo(data); err != nil && (m.name != "" || m.depends != nil) {
			t.Errorf("%+v beside error %v", m, err)
		}
	})
}
