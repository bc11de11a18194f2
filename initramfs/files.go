package initramfs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/u-root/u-root/pkg/cpio"
)

// addFiles adds the user's files and the libraries they need.
func (t *tree) addFiles(files []File) error {
	libs := newLinker("/")
	for _, f := range files {
		src, err := filepath.Abs(f.Src)
		if err != nil {
			return err
		}
		dst := f.Dst
		if dst == "" {
			dst = src
		}
		if err := t.addTree(libs, src, path.Clean("/"+dst)); err != nil {
			return fmt.Errorf("add file %s: %w", f.Src, err)
		}
	}
	return nil
}

// addTree adds src, which may be a directory, as dst.
func (t *tree) addTree(libs *linker, src, dst string) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return t.addLinked(libs, src, dst)
	}
	root := src + string(filepath.Separator) // follows src where it is a link itself
	return filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, name)
		if err != nil {
			return err
		}
		at := path.Join(dst, filepath.ToSlash(rel))
		switch e.Type() {
		case 0:
			return t.addLinked(libs, name, at)
		case fs.ModeDir:
			if at == "/" {
				return nil
			}
			return t.addDirs(at[1:])
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return t.add(cpio.Symlink(at, target), name)
		default:
			return fmt.Errorf("%s: %s cannot be packed", name, e.Type())
		}
	})
}

// addLinked adds a regular file and, when it is dynamically linked, what its
// loader will look for.
func (t *tree) addLinked(libs *linker, src, dst string) error {
	if err := t.addFile(src, dst, 0); err != nil {
		return err
	}
	needed, err := libs.closure(File{Src: src, Dst: dst})
	if err != nil {
		return err
	}
	for _, lib := range needed {
		if err := t.addFile(lib.Src, lib.Dst, 0o755); err != nil {
			return err
		}
	}
	return nil
}
