package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// elsewhere is where a program goes in the image that lies in a directory of this
// machine's PATH which a guest's PATH has not.
const elsewhere = "/usr/local/bin"

// withPrograms adds the programs that a spec names to the files of an image: those
// that are not among them and that this machine has. The interpreter of a script
// comes with it.
func withPrograms(s *spec.Spec, files []initramfs.File) ([]initramfs.File, error) {
	var errs []error
	p := programs{files: slices.Clone(files)}
	paths, names := scenario.Programs(s)
	for i, name := range names {
		if err := p.add(name, 0); err != nil {
			errs = append(errs, spec.At(paths[i], err))
		}
	}
	return p.files, errors.Join(errs...)
}

type programs struct{ files []initramfs.File }

// maxInterpreters bounds scripts that are the interpreters of scripts.
const maxInterpreters = 4

// add adds a program unless the image has it.
func (p *programs) add(name string, depth int) error {
	if p.has(name) {
		return nil
	}
	if depth > maxInterpreters {
		return fmt.Errorf("%s: scripts interpret each other", name)
	}
	f := initramfs.File{Src: name, Dst: name}
	if !strings.Contains(name, "/") {
		found, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("there is no program %q in the PATH of this machine that could be put into the image; add it with --file SRC:%s/%s", name, elsewhere, name)
		}
		if f.Src, err = filepath.Abs(found); err != nil {
			return err
		}
		f.Dst = f.Src
		if !slices.Contains(filepath.SplitList(spawn.DefaultPath), filepath.Dir(f.Src)) {
			f.Dst = path.Join(elsewhere, name)
		}
	}
	info, err := os.Stat(f.Src)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("this machine has no program %s that could be put into the image; add it with --file SRC:%s", name, name)
	}
	p.files = append(p.files, f)
	return p.addInterpreter(f.Src, depth)
}

// addInterpreter adds what the first line of a script names.
func (p *programs) addInterpreter(script string, depth int) error {
	f, err := os.Open(script)
	if err != nil {
		return err
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
	words, isScript := strings.CutPrefix(line, "#!")
	interpreter := strings.Fields(words)
	if !isScript || len(interpreter) == 0 {
		return nil
	}
	err = p.add(interpreter[0], depth+1)
	if err == nil && path.Base(interpreter[0]) == "env" && len(interpreter) > 1 && !strings.HasPrefix(interpreter[1], "-") {
		err = p.add(interpreter[1], depth+1)
	}
	if err != nil {
		return fmt.Errorf("interpreter of %s: %w", script, err)
	}
	return nil
}

// has tells whether the image has a program, named by path or to be looked up.
func (p *programs) has(name string) bool {
	if !strings.Contains(name, "/") {
		return slices.ContainsFunc(filepath.SplitList(spawn.DefaultPath), func(dir string) bool { return p.has(path.Join(dir, name)) })
	}
	name = path.Clean(name)
	if name == initramfs.InitPath || name == initramfs.LinkPath {
		return true
	}
	return slices.ContainsFunc(p.files, func(f initramfs.File) bool {
		src, err := filepath.Abs(f.Src)
		dst := path.Clean("/" + f.Dst)
		if f.Dst == "" {
			dst = src
		}
		if err != nil || dst == name {
			return err == nil
		}
		below, inside := strings.CutPrefix(name, strings.TrimSuffix(dst, "/")+"/")
		if !inside {
			return false
		}
		_, err = os.Stat(filepath.Join(src, below))
		return err == nil
	})
}
