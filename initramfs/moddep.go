package initramfs

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxMetaLine bounds a line of modules.dep; a real one is a few kilobytes.
const maxMetaLine = 1 << 20

// moduleFile is a module as modules.dep or modules.order lists it. Paths are
// relative to the modules directory.
type moduleFile struct {
	path string
	deps []string // names; from modules.dep only
}

// parseModulesDep reads depmod's modules.dep, lines "path: path...", by
// module name.
func parseModulesDep(r io.Reader) (map[string]moduleFile, error) {
	out := make(map[string]moduleFile)
	err := eachLine(r, func(line string) error {
		file, deps, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("line %.80q: no colon", line)
		}
		name := nameOfPath(file)
		if name == "" {
			return fmt.Errorf("line %.80q: no module", line)
		}
		m := moduleFile{path: file, deps: []string{}}
		for _, dep := range strings.Fields(deps) {
			m.deps = addModule(m.deps, nameOfPath(dep))
		}
		out[name] = m
		return nil
	})
	return out, err
}

// parseModuleList reads modules.order or modules.builtin, one path a line.
func parseModuleList(r io.Reader) (map[string]moduleFile, error) {
	out := make(map[string]moduleFile)
	err := eachLine(r, func(line string) error {
		if name := nameOfPath(line); name != "" {
			out[name] = moduleFile{path: line}
		}
		return nil
	})
	return out, err
}

func eachLine(r io.Reader, f func(string) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxMetaLine)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return err
		}
	}
	return sc.Err()
}

// nameOfPath returns the module name of a path such as
// kernel/net/foo-bar.ko.xz, "" when it is not a module's.
func nameOfPath(p string) string {
	base, _, ok := strings.Cut(path.Base(strings.TrimSpace(p)), ".ko")
	if !ok {
		return ""
	}
	return moduleName(base)
}

// moduleIndex knows the modules below lib/modules/RELEASE.
type moduleIndex struct {
	dir     string
	files   map[string]moduleFile
	builtin map[string]moduleFile
	hasDep  bool // files come from modules.dep, dependencies included
	walked  bool // files hold all there is on disk
}

// openIndex reads the metadata in dir. Kernels that were unpacked but not
// installed have no modules.dep; then modules.order names the files.
func openIndex(dir string) (*moduleIndex, error) {
	x := &moduleIndex{dir: dir}
	var err error
	if x.files, err = readMeta(dir, "modules.dep", parseModulesDep); err != nil {
		return nil, err
	}
	x.hasDep = len(x.files) > 0
	if !x.hasDep {
		if x.files, err = readMeta(dir, "modules.order", parseModuleList); err != nil {
			return nil, err
		}
	}
	if x.builtin, err = readMeta(dir, "modules.builtin", parseModuleList); err != nil {
		return nil, err
	}
	return x, nil
}

func readMeta(dir, name string, parse func(io.Reader) (map[string]moduleFile, error)) (map[string]moduleFile, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		return map[string]moduleFile{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return m, nil
}

// find returns the file of a module with its path as it is on disk.
func (x *moduleIndex) find(name string) (moduleFile, bool, error) {
	if m, ok := x.files[name]; ok {
		if p, ok := x.onDisk(m.path); ok {
			m.path = p
			return m, true, nil
		}
	}
	if !x.walked {
		if err := x.walk(); err != nil {
			return moduleFile{}, false, err
		}
		return x.find(name)
	}
	return moduleFile{}, false, nil
}

// onDisk finds the file of a listed module: modules.order says .ko even where
// the files are compressed.
func (x *moduleIndex) onDisk(listed string) (string, bool) {
	stem, _, _ := strings.Cut(listed, ".ko")
	for _, p := range []string{listed, stem + ".ko", stem + ".ko.xz", stem + ".ko.zst", stem + ".ko.gz"} {
		if st, err := os.Stat(filepath.Join(x.dir, p)); err == nil && st.Mode().IsRegular() {
			return p, true
		}
	}
	return "", false
}

// walk adds modules that no metadata lists, such as out-of-tree ones.
func (x *moduleIndex) walk() error {
	x.walked = true
	return filepath.WalkDir(x.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name := nameOfPath(p)
		if name == "" {
			return nil
		}
		rel, err := filepath.Rel(x.dir, p)
		if err != nil {
			return err
		}
		if old, ok := x.files[name]; ok {
			if _, ok := x.onDisk(old.path); ok {
				return nil
			}
		}
		x.files[name] = moduleFile{path: rel}
		return nil
	})
}
