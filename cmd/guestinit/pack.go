package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/launch"
)

// fileList is the value of a repeated --file SRC[:DST].
type fileList []initramfs.File

// String is for package flag.
func (l *fileList) String() string { return "" }

// Set adds one SRC[:DST].
func (l *fileList) Set(v string) error {
	src, dst, _ := strings.Cut(v, ":")
	if src == "" {
		return fmt.Errorf("%q names no source", v)
	}
	*l = append(*l, initramfs.File{Src: src, Dst: dst})
	return nil
}

func setUpPack(fs *flag.FlagSet) func([]string, streams) int {
	var files fileList
	out := fs.String("o", "", "write the image to `FILE`")
	kernelPath := fs.String("kernel", "", "kernel `DIR` or image whose modules go into the image")
	modules := fs.String("modules", "", "`DIR` with the kernel's modules (lib/modules/RELEASE)")
	specPath := fs.String("spec", "", "workload `SPEC` that the image runs without being told")
	compression := fs.String("compression", "none", "none, gzip, lz4 or zstd")
	fs.Var(&files, "file", "add `SRC[:DST]` to the image, with the libraries it needs; can be repeated\n(programs that the spec executes are added by themselves)")
	return func(args []string, io streams) int {
		if *out == "" || len(args) > 0 {
			return fail(io, launch.Usage, errors.New("pack: want -o FILE and no arguments"))
		}
		if !slices.Contains(initramfs.Compressions, *compression) {
			return fail(io, launch.Usage, fmt.Errorf("pack: --compression %q is not known; use %s", *compression, strings.Join(initramfs.Compressions, ", ")))
		}
		o := initramfs.Options{Files: files, Compression: *compression, Features: []string{"serial", "vsock"}}
		if *specPath != "" {
			s, err := readSpec([]string{*specPath}, io.in)
			if err != nil {
				return fail(io, launch.Usage, err)
			}
			if o.Files, err = withPrograms(s, files); err != nil {
				return fail(io, launch.Usage, err)
			}
			if o.Spec, err = s.JSON(); err != nil {
				return fail(io, launch.Usage, err)
			}
		}
		if err := pack(*out, *kernelPath, *modules, o); err != nil {
			return fail(io, launch.Setup, err)
		}
		return launch.StatusPass
	}
}

func pack(out, kernelPath, modules string, o initramfs.Options) (err error) {
	if o.Init, err = os.Executable(); err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	if kernelPath != "" {
		if o.Kernel, err = kernel.Open(kernelPath, modules); err != nil {
			return err
		}
	}
	f, err := createFile(out)
	if err != nil {
		return fmt.Errorf("open -o: %w", err)
	}
	err = writeFile(f, func(w *bufio.Writer) error {
		_, err := initramfs.Build(w, o)
		return err
	})
	if st, serr := os.Stat(out); err != nil && serr == nil && st.Mode().IsRegular() {
		os.Remove(out) // half an image boots nothing
	}
	return err
}
