package kernel

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// elfSuffix marks the unpacked twin of an image.
const elfSuffix = ".vmlinux"

// ErrNoPVH is matched when a kernel has no entry point for a boot over PVH
// (CONFIG_PVH); its bzImage boots all the same.
var ErrNoPVH = errors.New("kernel has no PVH entry point")

// Vmlinux returns the path of the kernel as an ELF image that QEMU boots over
// PVH, which spares the guest its own decompression.
//
// A vmlinux is used as it is. A bzImage is unpacked once and the result kept
// beside it, or below CacheDir where that cannot be written or belongs to the
// system; it is made anew when the bzImage changes. Unpacking takes up to a
// few seconds. An error, which may match ErrCompression or ErrNoPVH, means
// that Image itself is to be booted.
func (k *Kernel) Vmlinux() (string, error) {
	path, err := k.vmlinux()
	if err != nil {
		return "", fmt.Errorf("unpack kernel %s: %w", k.Image, err)
	}
	return path, nil
}

func (k *Kernel) vmlinux() (string, error) {
	f, err := os.Open(k.Image)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, err := readSetupHeader(f)
	if errors.Is(err, errNotBzImage) {
		return k.Image, checkPVH(k.Image)
	}
	if err != nil {
		return "", err
	}
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	x := extraction{image: f, header: h, mtime: st.ModTime()}
	return x.cached(k.Image)
}

// extraction is the way from an open bzImage to its ELF file.
type extraction struct {
	image  *os.File
	header setupHeader
	mtime  time.Time
}

// cached returns an unpacked image that is still good, or makes one in the
// first place that lets itself be written.
func (x *extraction) cached(image string) (string, error) {
	places, err := vmlinuxPlaces(image)
	if err != nil {
		return "", err
	}
	for _, p := range places {
		if x.fresh(p) {
			return p, nil
		}
	}
	var denied error
	for _, p := range places {
		err := x.write(p)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, errPlace) {
			return "", err
		}
		denied = err
	}
	return "", denied
}

// vmlinuxPlaces lists where the unpacked twin of image may lie. Directories
// of the system are left alone: boot loaders list every vmlinux in /boot.
func vmlinuxPlaces(image string) ([]string, error) {
	real, err := filepath.EvalSymlinks(image)
	if err != nil {
		return nil, err
	}
	var places []string
	ofSystem := func(dir string) bool { return strings.HasPrefix(real, dir) }
	if !slices.ContainsFunc([]string{"/boot/", "/usr/", "/lib/"}, ofSystem) {
		places = append(places, real+elfSuffix)
	}
	cache, err := CacheDir()
	if err != nil && len(places) == 0 {
		return nil, err
	}
	if err == nil {
		sum := fnv.New64a()
		io.WriteString(sum, real)
		name := fmt.Sprintf("%016x-%s%s", sum.Sum64(), filepath.Base(real), elfSuffix)
		places = append(places, filepath.Join(cache, "vmlinux", name))
	}
	return places, nil
}

// fresh tells whether path is a whole unpacked image of this very bzImage:
// made from a file of the same time and of the length that the bzImage tells.
func (x *extraction) fresh(path string) bool {
	st, err := os.Stat(path)
	if err != nil || !st.ModTime().Equal(x.mtime) {
		return false
	}
	if size, err := x.unpackedSize(); err != nil || size != st.Size() {
		return false
	}
	return checkPVH(path) == nil
}

// unpackedSize reads the length of the unpacked kernel, which ends the
// payload whatever the compression is.
func (x *extraction) unpackedSize() (int64, error) {
	var b [4]byte
	if _, err := x.image.ReadAt(b[:], x.header.payload+x.header.payloadLength-4); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(b[:])), nil
}

// errPlace marks errors of the place to write to, not of the kernel.
var errPlace = errors.New("write unpacked kernel")

// write unpacks into path, whole or not at all.
func (x *extraction) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("%w: %w", errPlace, err)
	}
	sweepUnpacked(path)
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+tmpMark+"*")
	if err != nil {
		return fmt.Errorf("%w: %w", errPlace, err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := x.unpack(tmp); err != nil {
		return err
	}
	if err := checkPVH(tmp.Name()); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("%w: %w", errPlace, err)
	}
	if err := os.Chtimes(tmp.Name(), time.Time{}, x.mtime); err != nil {
		return fmt.Errorf("%w: %w", errPlace, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("%w: %w", errPlace, err)
	}
	return nil
}

// staleAge is when the writer of a file that is not whole is dead for certain: it
// takes seconds.
const staleAge = time.Hour

// sweepUnpacked removes what was left for path by launchers that were killed while
// they unpacked. What cannot be removed does no harm to who comes after.
func sweepUnpacked(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(path)+tmpMark) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAge {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}

// unpack writes the decompressed payload to w.
func (x *extraction) unpack(w io.Writer) error {
	var head [8]byte
	if _, err := x.image.ReadAt(head[:], x.header.payload); err != nil {
		return err
	}
	f, ok := detectFormat(head[:])
	if !ok {
		return fmt.Errorf("%w: payload starts with % x", ErrCompression, head[:4])
	}
	want, err := x.unpackedSize()
	if err != nil {
		return err
	}
	if want > maxKernel {
		return fmt.Errorf("unpacked kernel of %d bytes is over the limit of %d", want, maxKernel)
	}
	length := x.header.payloadLength
	if f.sized {
		length -= 4
	}
	z, err := f.open(bufio.NewReaderSize(io.NewSectionReader(x.image, x.header.payload, length), 1<<20))
	if err != nil {
		return fmt.Errorf("read %s payload: %w", f.name, err)
	}
	defer z.Close()
	n, err := io.Copy(w, io.LimitReader(z, want+1))
	if isWriteError(err) {
		return fmt.Errorf("%w: %w", errPlace, err)
	}
	if err != nil {
		return fmt.Errorf("read %s payload: %w", f.name, err)
	}
	if n != want {
		return fmt.Errorf("read %s payload: unpacked to %d bytes, not %d", f.name, n, want)
	}
	return nil
}

// isWriteError tells a full or failing disk from a bad payload.
func isWriteError(err error) bool {
	var p *os.PathError
	return errors.As(err, &p) && p.Op == "write"
}

const xenPhys32Entry = 18 // XEN_ELFNOTE_PHYS32_ENTRY of xen/interface/elfnote.h

// checkPVH checks that path is an x86-64 ELF image with a PVH entry note.
func checkPVH(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("open vmlinux: %w", err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%w: the image is for %s", ErrNoPVH, f.Machine)
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	found := false
	for _, p := range f.Progs {
		if p.Off+p.Filesz < p.Off || p.Off+p.Filesz > uint64(st.Size()) {
			return fmt.Errorf("open vmlinux: segment at %d of %d bytes: %w", p.Off, p.Filesz, errTruncated)
		}
		if p.Type == elf.PT_NOTE && hasNote(p.Open(), "Xen", xenPhys32Entry) {
			found = true
		}
	}
	if !found {
		return ErrNoPVH
	}
	return nil
}

const maxNotes = 1 << 20

// hasNote looks for an ELF note by owner and type.
func hasNote(r io.Reader, owner string, kind uint32) bool {
	data, err := io.ReadAll(io.LimitReader(r, maxNotes))
	if err != nil {
		return false
	}
	le := binary.LittleEndian
	for len(data) >= 12 {
		nameLen, descLen := uint64(le.Uint32(data)), uint64(le.Uint32(data[4:]))
		nameEnd, descEnd := 12+nameLen, 12+align4(nameLen)+descLen
		if descEnd > uint64(len(data)) {
			return false
		}
		if le.Uint32(data[8:]) == kind && strings.TrimRight(string(data[12:nameEnd]), "\x00") == owner {
			return true
		}
		data = data[min(align4(descEnd), uint64(len(data))):]
	}
	return false
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }
