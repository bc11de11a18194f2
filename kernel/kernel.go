package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is a kernel that a guest can boot.
type Kernel struct {
	// Image is the path of the bzImage or vmlinux.
	Image string
	// Release is what uname -r says in the guest, such as
	// "6.12.95+deb12-cloud-amd64"; empty when the image does not tell.
	Release string
	// Modules is the directory lib/modules/RELEASE that belongs to the
	// kernel, or "" when there is none: then everything must be built in.
	Modules string
	// Dir is the directory the kernel was opened from, or "" when it was
	// opened by the path of its image.
	Dir string
}

// ErrNoKernel is what Find returns, wrapped, when there is no kernel at all.
var ErrNoKernel = errors.New("no kernel")

// Open opens the kernel at path: a bzImage, a vmlinux, or a directory that
// holds one, such as an unpacked kernel package, a file system root or a
// directory lib/modules/RELEASE with a vmlinuz in it. Of several kernels in a
// directory the newest is taken.
//
// modulesDir is where its modules are: lib/modules/RELEASE itself, or a
// directory that holds lib/modules/RELEASE or RELEASE. When it is empty they
// are looked for where the image's place suggests; a kernel without modules
// is not an error, but a modulesDir without modules for this kernel is.
func Open(path, modulesDir string) (*Kernel, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open kernel %s: %w", path, err)
	}
	st, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	if modulesDir != "" {
		if modulesDir, err = filepath.Abs(modulesDir); err != nil {
			return nil, fmt.Errorf("open kernel modules %s: %w", modulesDir, err)
		}
	}
	var k *Kernel
	if st.IsDir() {
		k, err = openDir(abs, modulesDir)
	} else {
		k, err = openImage(abs, modulesDir)
	}
	if err != nil {
		return nil, fmt.Errorf("open kernel %s: %w", path, err)
	}
	return k, nil
}

// Find picks the kernel to boot: explicit if it is not empty, else
// $GUESTINIT_KERNEL, else the newest in the cache, else the image of the
// running kernel where it is readable. modules is as in Open and holds for
// whichever is picked. When there is none the error matches ErrNoKernel and
// says what to do.
func Find(explicit, modules string) (*Kernel, error) {
	if explicit != "" {
		return Open(explicit, modules)
	}
	if env := os.Getenv("GUESTINIT_KERNEL"); env != "" {
		k, err := Open(env, modules)
		if err != nil {
			return nil, fmt.Errorf("$GUESTINIT_KERNEL: %w", err)
		}
		return k, nil
	}
	all, listErr := List()
	if len(all) > 0 {
		return Open(all[0].Dir, modules)
	}
	k, err := openRunning("/boot", modules)
	if err != nil && listErr != nil {
		return nil, fmt.Errorf("%w: %w; the running one cannot be used (%v); name one with --kernel PATH or GUESTINIT_KERNEL", ErrNoKernel, listErr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w in the cache, and the running one cannot be used (%v); run 'guestinit kernel fetch', or name one with --kernel PATH or GUESTINIT_KERNEL", ErrNoKernel, err)
	}
	return k, nil
}

// openRunning opens the image of the running kernel in boot.
func openRunning(boot, modules string) (*Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	return Open(filepath.Join(boot, "vmlinuz-"+unix.ByteSliceToString(u.Release[:])), modules)
}

// openDir opens the newest kernel in a directory.
func openDir(dir, modulesDir string) (*Kernel, error) {
	var image string
	for _, pattern := range []string{
		"boot/vmlinuz-*",
		"usr/lib/modules/*/vmlinuz",
		"lib/modules/*/vmlinuz",
		"vmlinuz-*",
		"vmlinuz",
		"arch/x86/boot/bzImage",
		"bzImage",
		"vmlinux",
	} {
		found, err := filepath.Glob(filepath.Join(globEscape(dir), pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() || strings.HasSuffix(name, elfSuffix) {
				continue
			}
			if image == "" || compareVersions(releaseInPath(name), releaseInPath(image)) > 0 {
				image = name
			}
		}
		if image != "" {
			break
		}
	}
	if image == "" {
		return nil, fmt.Errorf("no boot/vmlinuz-*, no lib/modules/*/vmlinuz and no vmlinux in %s", dir)
	}
	k, err := openImage(image, modulesDir)
	if err != nil {
		return nil, err
	}
	k.Dir = dir
	if k.Modules == "" && modulesDir == "" {
		k.Modules, _ = findModules(dir, k.Release)
	}
	return k, nil
}

// globEscape quotes the characters that filepath.Glob would take for a pattern.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// openImage opens an image by its path.
func openImage(path, modulesDir string) (*Kernel, error) {
	release, err := imageRelease(path)
	if err != nil {
		return nil, err
	}
	if release == "" {
		release = releaseInPath(path)
	}
	k := &Kernel{Image: path, Release: release}
	if modulesDir != "" {
		if k.Modules, err = findModules(modulesDir, release); err != nil {
			return nil, err
		}
		return k, nil
	}
	dir := filepath.Dir(path)
	for _, near := range []string{dir, filepath.Dir(dir)} {
		if found, err := findModules(near, release); err == nil {
			k.Modules = found
			break
		}
	}
	return k, nil
}

// releaseInPath guesses the release from names such as boot/vmlinuz-RELEASE
// and lib/modules/RELEASE/vmlinuz.
func releaseInPath(path string) string {
	base := filepath.Base(path)
	for _, prefix := range []string{"vmlinuz-", "vmlinux-", "bzImage-", "Image-"} {
		if r, ok := strings.CutPrefix(base, prefix); ok {
			return r
		}
	}
	if dir := filepath.Dir(path); filepath.Base(filepath.Dir(dir)) == "modules" {
		return filepath.Base(dir)
	}
	return ""
}

// findModules finds the modules of release in dir: dir itself, dir/RELEASE,
// or lib/modules/RELEASE or usr/lib/modules/RELEASE below it.
func findModules(dir, release string) (string, error) {
	if release != "" {
		for _, sub := range []string{"lib/modules", "usr/lib/modules", "."} {
			if d := filepath.Join(dir, sub, release); isModulesDir(d) {
				return d, nil
			}
		}
	}
	if isModulesDir(dir) && (release == "" || filepath.Base(dir) == release) {
		return dir, nil
	}
	if isModulesDir(dir) {
		return "", fmt.Errorf("%s holds modules of another kernel than %s", dir, release)
	}
	return "", fmt.Errorf("no modules of kernel %s in %s", release, dir)
}

// isModulesDir tells whether dir looks like lib/modules/RELEASE.
func isModulesDir(dir string) bool {
	for _, name := range []string{"modules.builtin", "modules.order", "modules.dep", "kernel"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}
