package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/worker"
)

const (
	ioBlock   = 4096
	minStripe = 64 << 10 // the least part of a shared file that a worker is given
)

// makeBacking gives each worker of an I/O type its backing: a file of its own in
// a directory, or a part of one file or disk that they share.
func (a *arena) makeBacking(p *groupPlan, slabs []*worker.Slab) error {
	path := p.work.Texts[0]
	if path == "" {
		path = os.TempDir()
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("work.path: %w", err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		err = a.ownFiles(p, slabs, path, int64(p.work.Values[1])<<10)
	case mode.IsRegular(), mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		err = a.shareFile(p, slabs, path, mode&fs.ModeDevice != 0)
	default:
		err = fmt.Errorf("%s is neither a directory, a file nor a disk", path)
	}
	if err != nil {
		return fmt.Errorf("work.path: %w", err)
	}
	return nil
}

// ownFiles makes a file for each worker, which has no name any more.
func (a *arena) ownFiles(p *groupPlan, slabs []*worker.Slab, dir string, size int64) error {
	fill := !onTmpfs(dir) && p.work.Type.Open&unix.O_DIRECT != 0
	direct := true
	for _, s := range slabs {
		fd, exact, err := a.tempFile(dir, p.work.Type.Open, size, fill)
		if err != nil {
			return err
		}
		direct = direct && exact
		give(s, 0, fd)
		s.DataBytes = uint64(size) / ioBlock * ioBlock
	}
	a.note(p, "backed by files of %d KiB in %s%s%s", size>>10, dir, tmpfsNote(dir), directNote(direct))
	return nil
}

func tmpfsNote(dir string) string {
	if onTmpfs(dir) {
		return " (tmpfs)"
	}
	return ""
}

func directNote(direct bool) string {
	if direct {
		return ""
	}
	return ", without the O_DIRECT that it does not offer"
}

// tempFile makes a file without a name and opens it with the flags; exact tells
// whether it could have O_DIRECT, if that was asked for. A file that is filled
// has its blocks: reading a hole would read no disk.
func (a *arena) tempFile(dir string, flags int, size int64, fill bool) (fd int, exact bool, err error) {
	name := filepath.Join(dir, fmt.Sprintf(".guestinit-%d-%x", os.Getpid(), rand.Uint64()))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return -1, false, err
	}
	defer f.Close()
	defer os.Remove(name)
	if err := f.Truncate(size); err != nil {
		return -1, false, err
	}
	if fill {
		zeros := make([]byte, 1<<20)
		for at := int64(0); at < size; at += int64(len(zeros)) {
			if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
				return -1, false, err
			}
		}
	}
	fd, exact, err = openBacking(name, flags)
	if err != nil {
		return -1, false, err
	}
	return a.keep(fd), exact, nil
}

// openBacking opens a file for reading and writing with the flags, or without
// O_DIRECT where the file system has none (tmpfs before Linux 6.6).
func openBacking(name string, flags int) (fd int, exact bool, err error) {
	fd, err = unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err == nil {
		return fd, true, nil
	}
	if errors.Is(err, unix.EINVAL) && flags&unix.O_DIRECT != 0 {
		if fd, err = unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC|flags&^unix.O_DIRECT, 0); err == nil {
			return fd, false, nil
		}
	}
	return -1, false, &fs.PathError{Op: "open", Path: name, Err: err}
}

// shareFile gives each worker a part of one file or disk. A disk is opened
// exclusively: the kernel then refuses one that is mounted.
func (a *arena) shareFile(p *groupPlan, slabs []*worker.Slab, path string, disk bool) error {
	flags := p.work.Type.Open
	if disk {
		flags |= unix.O_EXCL
	}
	fd, direct, err := openBacking(path, flags)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: it is mounted or in use, and the workers would overwrite it", err)
	}
	if err != nil {
		return err
	}
	a.keep(fd)
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return &fs.PathError{Op: "seek", Path: path, Err: err}
	}
	part := uint64(size) / uint64(len(slabs)) / ioBlock * ioBlock
	if part < minStripe {
		return fmt.Errorf("%s has %d bytes, which is less than %d for each of %d workers", path, size, minStripe, len(slabs))
	}
	for i, s := range slabs {
		give(s, 0, fd)
		s.DataBase, s.DataBytes = uint64(i)*part, part
	}
	a.note(p, "backed by %s, %d KiB a worker%s", path, part>>10, directNote(direct))
	return nil
}

// makeScratch gives each worker an empty file in the temporary directory.
func (a *arena) makeScratch(p *groupPlan, slabs []*worker.Slab) error {
	dir := os.TempDir()
	for _, s := range slabs {
		fd, _, err := a.tempFile(dir, 0, 0, false)
		if err != nil {
			return fmt.Errorf("make scratch file: %w", err)
		}
		give(s, 0, fd)
	}
	a.note(p, "io phases write to files in %s%s", dir, tmpfsNote(dir))
	return nil
}

const tmpfsMagic = 0x01021994 // TMPFS_MAGIC of include/uapi/linux/magic.h

func onTmpfs(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == tmpfsMagic
}
