package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// completeText is the content of CompletePath.
const completeText = "guestinit image 1\n"

// Build writes an image to w. On an error what has been written is of no use.
func Build(w io.Writer, o Options) (*Manifest, error) {
	m, err := build(w, o)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return m, nil
}

func build(w io.Writer, o Options) (*Manifest, error) {
	m := &Manifest{}
	c, err := chooseModules(o, m)
	if err != nil {
		return nil, err
	}
	t := newTree()
	// The list and /init come early, so that an image that is cut later can
	// still say so: see CompletePath.
	if err := t.addText(ModulesPath, moduleList(m.Modules)); err != nil {
		return nil, err
	}
	if err := t.addInit(o.Init); err != nil {
		return nil, err
	}
	if err := t.addModules(c); err != nil {
		return nil, err
	}
	if err := t.addFiles(o.Files); err != nil {
		return nil, err
	}
	if len(o.Spec) > 0 {
		if err := t.addText(SpecPath, o.Spec); err != nil {
			return nil, err
		}
	}
	if err := t.addText(CompletePath, []byte(completeText)); err != nil {
		return nil, err
	}
	written := &counter{w: w}
	z, err := newCompressor(written, o.Compression)
	if err != nil {
		return nil, err
	}
	unpacked := &counter{w: z}
	if err := t.write(unpacked); err != nil {
		return nil, errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	for _, r := range t.records {
		m.Paths = append(m.Paths, "/"+r.Name)
	}
	m.Unpacked, m.Bytes = unpacked.n, written.n
	return m, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// tree collects the records of an image. Every entry comes after the
// directories it lies in, as the kernel unpacks in order.
type tree struct {
	records []cpio.Record
	sources map[string]string // path in the image → where its content is from
}

func newTree() *tree {
	t := &tree{sources: make(map[string]string)}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "bbin"} {
		t.addDirs(d)
	}
	// The console must be there before devtmpfs is: the kernel opens it for /init.
	t.records = append(t.records,
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.CharDev("dev/null", 0o666, 1, 3))
	t.sources["dev/console"], t.sources["dev/null"] = ownSource, ownSource
	return t
}

const (
	ownSource = "guestinit itself"
	dirSource = "directory"
)

// clean turns a path in the guest into a name in the archive.
func clean(dst string) (string, error) {
	name := strings.TrimPrefix(path.Clean("/"+dst), "/")
	if name == "" || name == cpio.Trailer || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("add %q: not a usable path in the guest", dst)
	}
	return name, nil
}

// addDirs adds a directory and those above it that are not there yet.
func (t *tree) addDirs(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		switch src, ok := t.sources[name[:i]]; {
		case !ok:
			t.sources[name[:i]] = dirSource
			t.records = append(t.records, cpio.Directory(name[:i], 0o755))
		case src != dirSource:
			return fmt.Errorf("add /%s: /%s is not a directory", name, name[:i])
		}
	}
	return nil
}

// add appends a record. The same content may be asked for twice under a
// name, as libraries are; different content may not.
func (t *tree) add(r cpio.Record, src string) error {
	name, err := clean(r.Name)
	if err != nil {
		return err
	}
	if have, ok := t.sources[name]; ok {
		if have == src {
			return nil
		}
		return fmt.Errorf("add /%s from %s: already there, from %s", name, src, have)
	}
	if r.FileSize > math.MaxUint32 {
		return fmt.Errorf("add /%s: %d bytes are too many for a cpio archive", name, r.FileSize)
	}
	if dir := path.Dir(name); dir != "." {
		if err := t.addDirs(dir); err != nil {
			return err
		}
	}
	r.Name = name
	t.sources[name] = src
	t.records = append(t.records, r)
	return nil
}

func (t *tree) addText(dst string, data []byte) error {
	return t.add(cpio.StaticRecord(data, cpio.Info{Name: dst, Mode: cpio.S_IFREG | 0o644}), ownSource)
}

// addInit adds the init binary and its link.
func (t *tree) addInit(src string) error {
	if src == "" {
		return errors.New("no init binary given")
	}
	if err := checkStatic(src); err != nil {
		return err
	}
	if err := t.addFile(src, InitPath, 0o755); err != nil {
		return err
	}
	return t.add(cpio.Symlink(LinkPath, InitPath), ownSource)
}

// checkStatic refuses an init that cannot start alone in the guest.
func checkStatic(src string) error {
	o, err := readObject(File{Src: src, Dst: InitPath})
	if err != nil {
		return fmt.Errorf("open init: %w", err)
	}
	if o == nil {
		return fmt.Errorf("open init %s: not an ELF program", src)
	}
	if o.interp != "" || len(o.needed) > 0 {
		return fmt.Errorf("open init %s: it is dynamically linked; build it with CGO_ENABLED=0", src)
	}
	return nil
}

// addFile adds a regular file, which is only opened when it is written. perm
// 0 means the permissions of the file.
func (t *tree) addFile(src, dst string, perm uint64) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("add %s: %s is not a regular file", src, st.Mode().Type())
	}
	if perm == 0 {
		perm = uint64(st.Mode().Perm())
	}
	abs, err := filepath.Abs(src)
	if err != nil {
		return err
	}
	r := cpio.Record{
		ReaderAt: &lazyFile{path: abs},
		Info:     cpio.Info{Name: dst, Mode: cpio.S_IFREG | perm, FileSize: uint64(st.Size())},
	}
	return t.add(r, abs)
}

// write writes all records and the trailer. Times, owners and devices are
// zero and inode numbers count up, so that only content decides the bytes.
func (t *tree) write(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	out := cpio.Newc.Writer(buffered)
	for i, r := range t.records {
		r.Ino, r.NLink = uint64(i+1), 1
		if r.Mode&cpio.S_IFMT == cpio.S_IFDIR {
			r.NLink = 2
		}
		if err := out.WriteRecord(r); err != nil {
			return fmt.Errorf("write /%s: %w", r.Name, err)
		}
	}
	if err := cpio.WriteTrailer(out); err != nil {
		return err
	}
	return buffered.Flush()
}

// lazyFile is a file that is open from its first read until it is closed, so
// that an image of many files does not hold a descriptor for each.
type lazyFile struct {
	path string
	file *os.File
}

// ReadAt reads from the file, which it opens first if need be.
func (l *lazyFile) ReadAt(p []byte, off int64) (int, error) {
	if l.file == nil {
		f, err := os.Open(l.path)
		if err != nil {
			return 0, err
		}
		l.file = f
	}
	return l.file.ReadAt(p, off)
}

// Close closes the file if a read opened it.
func (l *lazyFile) Close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
