package launch

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/initramfs"
)

// writeImage builds the image into path, or into memory if path is empty.
func writeImage(path string, o initramfs.Options) (*os.File, *initramfs.Manifest, error) {
	f, err := imageFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("create image: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	m, err := initramfs.Build(w, o)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, m, nil
}

// imageFile is a memfd, or an unlinked temporary file on kernels without.
func imageFile(path string) (*os.File, error) {
	if path != "" {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	}
	if fd, err := unix.MemfdCreate("guestinit-initrd", unix.MFD_CLOEXEC); err == nil {
		return os.NewFile(uintptr(fd), "guestinit-initrd"), nil
	}
	f, err := os.CreateTemp("", "guestinit-initrd-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// Names in the directory of a kept run.
const (
	keepImage   = "initrd.img"
	keepSpec    = "spec.json"
	keepConsole = "console.log"
	keepReport  = "report.zst"
	keepCommand = "command.sh"
	keepLink    = "link.sock"
	keepVsock   = "vsock.sock"
)

// keepDir makes the directory of a kept run. It is never removed and never
// used twice.
func keepDir(spec []byte) (string, error) {
	dir, err := os.MkdirTemp("", "guestinit-run-")
	if err != nil {
		return "", fmt.Errorf("create directory for --keep: %w", err)
	}
	if len(spec) > 0 {
		if err := os.WriteFile(filepath.Join(dir, keepSpec), spec, 0o644); err != nil {
			return dir, fmt.Errorf("keep spec: %w", err)
		}
	}
	return dir, nil
}

// keepScript writes the command as a script.
func keepScript(dir, command string) error {
	text := "#!/bin/sh\n# The guest of this directory, by hand. Its console is this terminal.\nexec " + command + "\n"
	if err := os.WriteFile(filepath.Join(dir, keepCommand), []byte(text), 0o755); err != nil {
		return fmt.Errorf("keep command: %w", err)
	}
	return nil
}
