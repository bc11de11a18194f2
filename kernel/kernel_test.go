package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// layout writes files below a new directory: names that end in a slash are
// directories, vmlinuz* and bzImage* become bzImages of the release given.
func layout(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, release := range files {
		full := filepath.Join(root, name)
		dir := filepath.Dir(full)
		if strings.HasSuffix(name, "/") {
			dir = full
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == full {
			continue
		}
		if err := os.WriteFile(full, makeBzImage(release, []byte("payload")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		name           string
		files          map[string]string
		path, modules  string // below the root
		image, release string
		wantModules    string
		err            string
	}{
		{
			name:  "unpacked package",
			files: map[string]string{"boot/vmlinuz-6.1.0-50": "6.1.0-50", "lib/modules/6.1.0-50/kernel/": ""},
			image: "boot/vmlinuz-6.1.0-50", release: "6.1.0-50", wantModules: "lib/modules/6.1.0-50",
		},
		{
			name:  "package with the image among the modules",
			files: map[string]string{"usr/lib/modules/7.2.13/vmlinuz": "7.2.13", "usr/lib/modules/7.2.13/kernel/": ""},
			image: "usr/lib/modules/7.2.13/vmlinuz", release: "7.2.13", wantModules: "usr/lib/modules/7.2.13",
		},
		{
			name:  "modules directory",
			files: map[string]string{"7.2.13/vmlinuz": "7.2.13", "7.2.13/kernel/": ""},
			path:  "7.2.13",
			image: "7.2.13/vmlinuz", release: "7.2.13", wantModules: "7.2.13",
		},
		{
			name: "newest of several, unpacked twins aside",
			files: map[string]string{
				"boot/vmlinuz-6.1.0-9": "6.1.0-9", "boot/vmlinuz-6.1.0-10": "6.1.0-10", "boot/vmlinuz-6.1.0-10.vmlinux": "9.9",
				"lib/modules/6.1.0-9/kernel/": "", "lib/modules/6.1.0-10/kernel/": "",
			},
			image: "boot/vmlinuz-6.1.0-10", release: "6.1.0-10", wantModules: "lib/modules/6.1.0-10",
		},
		{
			name:  "kernel tree",
			files: map[string]string{"arch/x86/boot/bzImage": "6.13.0-rc1", "kernel/": ""},
			image: "arch/x86/boot/bzImage", release: "6.13.0-rc1",
		},
		{
			name:  "image by path, modules found",
			files: map[string]string{"boot/vmlinuz-6.1.0-50": "6.1.0-50", "lib/modules/6.1.0-50/kernel/": ""},
			path:  "boot/vmlinuz-6.1.0-50",
			image: "boot/vmlinuz-6.1.0-50", release: "6.1.0-50", wantModules: "lib/modules/6.1.0-50",
		},
		{
			name:  "image without modules",
			files: map[string]string{"bzImage": "6.1.0-50"},
			path:  "bzImage", image: "bzImage", release: "6.1.0-50",
		},
		{
			name:  "release from the name",
			files: map[string]string{"vmlinuz-6.1.0-50": "", "m/6.1.0-50/kernel/": ""},
			path:  "vmlinuz-6.1.0-50", modules: "m",
			image: "vmlinuz-6.1.0-50", release: "6.1.0-50", wantModules: "m/6.1.0-50",
		},
		{
			name:  "modules given themselves",
			files: map[string]string{"bzImage": "6.1.0-50", "x/6.1.0-50/kernel/": ""},
			path:  "bzImage", modules: "x/6.1.0-50",
			image: "bzImage", release: "6.1.0-50", wantModules: "x/6.1.0-50",
		},
		{
			name:  "modules of another kernel",
			files: map[string]string{"bzImage": "6.1.0-50", "x/6.1.0-51/kernel/": ""},
			path:  "bzImage", modules: "x/6.1.0-51", err: "another kernel than 6.1.0-50",
		},
		{
			name:  "modules missing",
			files: map[string]string{"bzImage": "6.1.0-50", "x/": ""},
			path:  "bzImage", modules: "x", err: "no modules of kernel 6.1.0-50",
		},
		{name: "nothing there", path: "nothing", err: "no such file"},
		{name: "empty directory", files: map[string]string{"x/": ""}, path: "x", err: "no boot/vmlinuz-*"},
		{
			name:  "characters of patterns in the path",
			files: map[string]string{"a[b]*/boot/vmlinuz-6.1": "6.1"},
			path:  "a[b]*", image: "a[b]*/boot/vmlinuz-6.1", release: "6.1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := layout(t, tt.files)
			below := func(p string) string {
				if p == "" {
					return ""
				}
				return filepath.Join(root, p)
			}
			k, err := Open(filepath.Join(root, tt.path), below(tt.modules))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if k.Image != below(tt.image) || k.Release != tt.release || k.Modules != below(tt.wantModules) {
				t.Errorf("got %+v", k)
			}
		})
	}
}

func TestFind(t *testing.T) {
	files := map[string]string{
		"cache/kernels/6.1.0-50/boot/vmlinuz-6.1.0-50":      "6.1.0-50",
		"cache/kernels/6.12.95/boot/vmlinuz-6.12.95":        "6.12.95",
		"cache/kernels/.tmp-1/boot/vmlinuz-9.9":             "9.9",
		"cache/kernels/broken/boot/":                        "",
		"env/vmlinuz-5.5":                                   "5.5",
		"explicit/vmlinuz-4.4":                              "4.4",
		"cache/kernels/6.12.95/lib/modules/6.12.95/kernel/": "",
	}
	root := layout(t, files)
	t.Setenv("GUESTINIT_CACHE", filepath.Join(root, "cache"))
	t.Setenv("GUESTINIT_KERNEL", filepath.Join(root, "env/vmlinuz-5.5"))
	wantRelease(t, filepath.Join(root, "explicit/vmlinuz-4.4"), "4.4")
	wantRelease(t, "", "5.5")
	t.Setenv("GUESTINIT_KERNEL", "")
	wantRelease(t, "", "6.12.95")

	all, err := List()
	if err != nil || len(all) != 2 || all[0].Release != "6.12.95" || all[1].Release != "6.1.0-50" {
		t.Errorf("list: %v, %v", all, err)
	}
	t.Setenv("GUESTINIT_KERNEL", filepath.Join(root, "nothing"))
	if _, err := Find("", ""); err == nil || !strings.Contains(err.Error(), "GUESTINIT_KERNEL") {
		t.Errorf("wrong variable: %v", err)
	}
}

func wantRelease(t *testing.T, explicit, want string) {
	t.Helper()
	k, err := Find(explicit, "")
	if err != nil || k.Release != want {
		t.Errorf("Find(%q): %+v, %v; want %s", explicit, k, err, want)
	}
}

func TestFindNothing(t *testing.T) {
	if _, err := openRunning("/boot", ""); err == nil {
		t.Skip("the running kernel has a readable image here; run in a container without /boot")
	}
	t.Setenv("GUESTINIT_CACHE", t.TempDir())
	t.Setenv("GUESTINIT_KERNEL", "")
	_, err := Find("", "")
	if !errors.Is(err, ErrNoKernel) || !strings.Contains(err.Error(), "guestinit kernel fetch") {
		t.Errorf("error %v", err)
	}
}

// Without a home there is no cache, which is no reason not to boot.
func TestNoCache(t *testing.T) {
	for _, name := range []string{"GUESTINIT_CACHE", "XDG_CACHE_HOME", "HOME", "GUESTINIT_KERNEL"} {
		t.Setenv(name, "")
	}
	if _, err := openRunning("/boot", ""); err != nil {
		_, err := Find("", "")
		if !errors.Is(err, ErrNoKernel) || !strings.Contains(err.Error(), "set GUESTINIT_CACHE") || !strings.Contains(err.Error(), "/boot/vmlinuz-") {
			t.Errorf("error %v", err)
		}
	}
	for image, want := range map[string]int{"/usr/bin/env": 0, filepath.Join(t.TempDir(), "vmlinuz"): 1} {
		if _, err := os.Stat(image); err != nil {
			if err := os.WriteFile(image, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if places, err := vmlinuxPlaces(image); len(places) != want || (err == nil) != (want > 0) {
			t.Errorf("%s is unpacked to %v, %v", image, places, err)
		}
	}
}
