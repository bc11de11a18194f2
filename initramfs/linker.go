package initramfs

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// linker finds the libraries of dynamically linked programs the way ld.so(8)
// does, but by reading: nothing of the program is run, so it may be for
// another architecture than the host's.
type linker struct {
	root string   // "/" outside tests
	conf []string // directories of ld.so.conf
}

func newLinker(root string) *linker {
	l := &linker{root: root}
	l.conf = l.readConf("/etc/ld.so.conf", 0)
	return l
}

// maxConfDepth bounds includes that include each other.
const maxConfDepth = 4

// readConf reads directories from an ld.so.conf file and what it includes.
// Files that cannot be read add nothing, as for ldconfig(8).
func (l *linker) readConf(name string, depth int) []string {
	f, err := os.Open(filepath.Join(l.root, name))
	if err != nil || depth > maxConfDepth {
		return nil
	}
	defer f.Close()
	var dirs []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "include":
			pattern := fields[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(name), pattern)
			}
			found, _ := filepath.Glob(filepath.Join(l.root, pattern))
			for _, inc := range found {
				rel, err := filepath.Rel(l.root, inc)
				if err == nil {
					dirs = append(dirs, l.readConf("/"+rel, depth+1)...)
				}
			}
		case len(fields) == 1 && path.IsAbs(fields[0]):
			dirs = append(dirs, fields[0])
		}
	}
	return dirs
}

// object is a program or library and what it asks the loader for.
type object struct {
	file    File
	machine elf.Machine
	class   elf.Class
	interp  string
	needed  []string
	runpath []string // unexpanded
}

// maxLibraries bounds the closure of one program.
const maxLibraries = 1000

// closure returns the loader and all libraries that f needs, none for a
// static program or a file that is no ELF program.
func (l *linker) closure(f File) ([]File, error) {
	first, err := readObject(f)
	if err != nil || first == nil {
		return nil, err
	}
	var out []File
	seen := make(map[string]bool)
	if first.interp != "" {
		out = append(out, File{Src: filepath.Join(l.root, first.interp), Dst: first.interp})
		seen[path.Base(first.interp)] = true // the C library names its loader too
	}
	for queue := []*object{first}; len(queue) > 0; queue = queue[1:] {
		o := queue[0]
		for _, name := range o.needed {
			if seen[name] {
				continue
			}
			seen[name] = true
			lib, err := l.find(name, o, first)
			if err != nil {
				return nil, err
			}
			out = append(out, lib.file)
			queue = append(queue, lib)
			if len(seen) > maxLibraries {
				return nil, fmt.Errorf("resolve libraries of %s: more than %d", f.Src, maxLibraries)
			}
		}
	}
	return out, nil
}

// find looks a library up for the object that needs it.
func (l *linker) find(name string, by, first *object) (*object, error) {
	standard := standardDirs(by.machine)
	for _, c := range l.places(name, by, first, standard) {
		o, err := readObject(File{Src: filepath.Join(l.root, c.Src), Dst: c.Dst})
		if err == nil && o != nil && o.machine == by.machine && o.class == by.class {
			return o, nil
		}
	}
	return nil, fmt.Errorf("resolve libraries of %s: %s not found; install it, or link the program statically", by.file.Src, name)
}

// places lists where a library may lie on the host, and for each where it
// has to go in the guest to be found there.
func (l *linker) places(name string, by, first *object, standard []string) []File {
	if strings.Contains(name, "/") {
		return []File{{Src: name, Dst: name}}
	}
	var out []File
	for _, o := range slices.Compact([]*object{by, first}) {
		for _, dir := range o.runpath {
			rel, _ := filepath.Rel(l.root, filepath.Dir(o.file.Src))
			src := expandOrigin(dir, "/"+filepath.ToSlash(rel))
			dst := expandOrigin(dir, path.Dir(o.file.Dst))
			if path.IsAbs(src) && path.IsAbs(dst) {
				out = append(out, File{Src: path.Join(src, name), Dst: path.Join(dst, name)})
			}
		}
	}
	for _, dir := range standard {
		out = append(out, File{Src: path.Join(dir, name), Dst: path.Join(dir, name)})
	}
	// The guest has no ld.so.cache: what the host finds through it must
	// move to where the loader looks by itself.
	home := path.Dir(first.interp)
	if i := slices.IndexFunc(standard, l.isDir); i >= 0 {
		home = standard[i]
	}
	for _, dir := range l.conf {
		out = append(out, File{Src: path.Join(dir, name), Dst: path.Join(home, name)})
	}
	return out
}

func (l *linker) isDir(dir string) bool {
	st, err := os.Stat(filepath.Join(l.root, dir))
	return err == nil && st.IsDir()
}

func expandOrigin(dir, origin string) string {
	return strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin).Replace(dir)
}

// standardDirs lists the directories that loaders search by themselves, on
// Debian's multiarch layout and on others.
func standardDirs(m elf.Machine) []string {
	var triple string
	switch m {
	case elf.EM_X86_64:
		triple = "x86_64-linux-gnu"
	case elf.EM_AARCH64:
		triple = "aarch64-linux-gnu"
	case elf.EM_386:
		triple = "i386-linux-gnu"
	}
	var dirs []string
	if triple != "" {
		dirs = append(dirs, "/lib/"+triple, "/usr/lib/"+triple)
	}
	return append(dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

// readObject reads what f asks its loader for; nil without an error when it
// is not an ELF program or library.
func readObject(f File) (*object, error) {
	file, err := os.Open(f.Src)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var magic [4]byte
	if _, err := file.ReadAt(magic[:], 0); errors.Is(err, io.EOF) || string(magic[:]) != elf.ELFMAG {
		return nil, nil
	}
	e, err := elf.NewFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ELF file %s: %w", f.Src, err)
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return nil, nil
	}
	o := &object{file: f, machine: e.Machine, class: e.Class}
	if o.needed, err = e.ImportedLibraries(); err != nil {
		return nil, fmt.Errorf("read ELF file %s: %w", f.Src, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		if paths, err := e.DynString(tag); err == nil && len(paths) > 0 {
			o.runpath = strings.Split(strings.Join(paths, ":"), ":")
			break // DT_RPATH counts only without DT_RUNPATH
		}
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			if err != nil {
				return nil, fmt.Errorf("read ELF file %s: %w", f.Src, err)
			}
			o.interp = string(bytes.TrimRight(b, "\x00"))
		}
	}
	return o, nil
}
