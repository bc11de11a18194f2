package initramfs

import (
	"bytes"
	"compress/gzip"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/guestinit/guestinit/kernel"
)

func gz(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

func zst(data []byte) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return z.EncodeAll(data, nil)
}

// moduleTree writes lib/modules/RELEASE as Debian 6.1 has it: serial and
// vsock are modules, in every packing there is.
func moduleTree(t *testing.T, change map[string][]byte) *kernel.Kernel {
	t.Helper()
	files := map[string][]byte{
		"kernel/virtio/virtio_ring.ko":                      makeModule("depends="),
		"kernel/virtio/virtio.ko.gz":                        gz(makeModule("depends=virtio_ring")),
		"kernel/virtio/virtio_pci.ko.zst":                   zst(makeModule("depends=virtio,virtio_ring,virtio_pci_modern_dev", "softdep=pre: absent")),
		"kernel/virtio/virtio-pci-modern-dev.ko":            makeModule("depends="),
		"kernel/char/virtio_console.ko":                     makeModule("depends=virtio,virtio_ring,hvc_console"),
		"kernel/vsock/vsock.ko":                             makeModule("depends="),
		"kernel/vsock/vmw_vsock_virtio_transport.ko":        makeModule("depends=vmw_vsock_virtio_transport_common,vsock"),
		"kernel/vsock/vmw_vsock_virtio_transport_common.ko": makeModule("depends=vsock"),
		"modules.builtin":                                   []byte("kernel/drivers/tty/hvc/hvc-console.ko\n"),
	}
	for name, data := range change {
		files[name] = data
	}
	dir := filepath.Join(t.TempDir(), "6.99.1-test")
	for name, data := range files {
		if data != nil {
			writeFile(t, filepath.Join(dir, name), data, 0o644)
		}
	}
	return &kernel.Kernel{Release: "6.99.1-test", Modules: dir}
}

// loadOrder renders the modules of a feature.
func loadOrder(m *Manifest, feature string) string {
	var names []string
	for _, mod := range m.Modules {
		if mod.Feature == feature {
			names = append(names, mod.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestModuleClosure(t *testing.T) {
	const (
		serial = "virtio_ring virtio virtio_pci_modern_dev virtio_pci virtio_console"
		vsock  = "virtio_ring virtio virtio_pci_modern_dev virtio_pci vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport"
	)
	hvc := []string{"hvc_console"}
	for _, tt := range []struct {
		name          string
		change        map[string][]byte
		features      []string
		serial, vsock string
		builtin       []string
		err           string
	}{
		{name: "all", serial: serial, vsock: vsock, builtin: hvc},
		{name: "one feature", features: []string{"vsock"}, vsock: vsock},
		{name: "asked twice", features: []string{"serial", "serial"}, serial: serial, builtin: hvc},
		{
			name:     "soft dependency",
			change:   map[string][]byte{"kernel/virtio/virtio_ring.ko": makeModule("softdep=pre: vsock post: virtio_console")},
			features: []string{"serial"},
			serial:   "vsock " + serial,
			builtin:  hvc,
		},
		{
			name:     "soft dependencies in a circle",
			change:   map[string][]byte{"kernel/virtio/virtio_ring.ko": makeModule("softdep=pre: virtio_pci")},
			features: []string{"serial"},
			serial:   serial,
			builtin:  hvc,
		},
		{name: "no feature", features: []string{}},
		{
			name: "all built in",
			change: map[string][]byte{"modules.builtin": []byte(
				"kernel/virtio-pci.ko\nkernel/virtio_console.ko\nkernel/vmw-vsock-virtio-transport.ko\n")},
			builtin: []string{"virtio_console", "virtio_pci", "vmw_vsock_virtio_transport"},
		},
		{
			name: "modules.dep rules",
			change: map[string][]byte{
				"modules.dep": []byte("kernel/virtio/virtio_pci.ko.zst: kernel/virtio/virtio.ko.gz kernel/virtio/virtio_ring.ko\n" +
					"kernel/virtio/virtio.ko.gz: kernel/virtio/virtio_ring.ko\nkernel/virtio/virtio_ring.ko:\n" +
					"kernel/char/virtio_console.ko: kernel/virtio/virtio.ko.gz\n"),
				"kernel/virtio/virtio_pci.ko.zst": zst(makeModule("depends=not_looked_at")),
			},
			features: []string{"serial"},
			serial:   "virtio_ring virtio virtio_pci virtio_console",
		},
		{
			name:     "missing dependency",
			change:   map[string][]byte{"kernel/virtio/virtio_ring.ko": nil},
			features: []string{"serial"},
			err:      "module virtio_ring, which virtio needs, is neither built into kernel 6.99.1-test nor in ",
		},
		{
			name:     "missing driver",
			change:   map[string][]byte{"kernel/vsock/vmw_vsock_virtio_transport.ko": nil},
			features: []string{"vsock"},
			err:      "which feature vsock needs",
		},
		{
			name:     "circle",
			change:   map[string][]byte{"kernel/virtio/virtio_ring.ko": makeModule("depends=virtio_pci")},
			features: []string{"serial"},
			err:      "depends on itself",
		},
		{
			name:     "not a module",
			change:   map[string][]byte{"kernel/vsock/vsock.ko": []byte("junk")},
			features: []string{"vsock"},
			err:      "vsock.ko: not an ELF file",
		},
		{name: "unknown feature", features: []string{"9p"}, err: `feature "9p" is not known; there are serial, vsock`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Build(io.Discard, Options{Init: makeInit(t), Kernel: moduleTree(t, tt.change), Features: tt.features})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := loadOrder(m, "serial"); got != tt.serial {
				t.Errorf("serial: %s\nwant    %s", got, tt.serial)
			}
			if got := loadOrder(m, "vsock"); got != tt.vsock {
				t.Errorf("vsock: %s\nwant   %s", got, tt.vsock)
			}
			if !reflect.DeepEqual(m.BuiltIn, tt.builtin) {
				t.Errorf("built in: %q, want %q", m.BuiltIn, tt.builtin)
			}
		})
	}
}

// TestRealKernels packs for the distribution kernels that are in the cache.
func TestRealKernels(t *testing.T) {
	all, err := kernel.List()
	if err != nil {
		t.Fatal(err)
	}
	const vsock = "vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport"
	const bus = "virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio virtio_pci"
	for _, tt := range []struct{ line, serial, vsock string }{
		{"6.1.", bus + " virtio_console", bus + " " + vsock},
		{"6.12.", "", vsock},
		{"7.2.", "", vsock},
	} {
		t.Run(tt.line, func(t *testing.T) {
			var k *kernel.Kernel
			for _, c := range all {
				if strings.HasPrefix(c.Release, tt.line) {
					k = c
				}
			}
			if k == nil {
				t.Skipf("no kernel in the cache; try: guestinit kernel fetch %s", strings.TrimSuffix(tt.line, "."))
			}
			m, err := Build(io.Discard, Options{Init: makeInit(t), Kernel: k})
			if err != nil {
				t.Fatal(err)
			}
			if got := loadOrder(m, "serial"); got != tt.serial {
				t.Errorf("serial: %s\nwant    %s", got, tt.serial)
			}
			if got := loadOrder(m, "vsock"); got != tt.vsock {
				t.Errorf("vsock: %s\nwant   %s", got, tt.vsock)
			}
		})
	}
}
