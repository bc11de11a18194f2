package guest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/guest/cmdline"
)

// Limits of the list of modules.
const (
	maxModuleList = 1 << 20 // bytes
	maxModules    = 1024
)

// moduleLine is one line of the list: what a module is for, and where it is.
type moduleLine struct{ feature, path string }

// parseModules reads the list of modules: a line "FEATURE PATH" each, empty
// lines and lines that begin with # left out.
func parseModules(list []byte) ([]moduleLine, error) {
	var lines []moduleLine
	for n, sc := 1, bufio.NewScanner(bytes.NewReader(list)); sc.Scan(); n++ {
		fields := strings.Fields(sc.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 || !filepath.IsAbs(fields[1]) {
			return nil, fmt.Errorf("/%s:%d: want \"FEATURE /PATH\", got %.80q", modulesPath, n, sc.Text())
		}
		if len(lines) == maxModules {
			return nil, fmt.Errorf("/%s: more than %d modules", modulesPath, maxModules)
		}
		lines = append(lines, moduleLine{fields[0], fields[1]})
	}
	return lines, nil
}

// wanted tells whether the modules of a feature are of use with the link that
// was asked for. Features that are no links always are.
func wanted(feature, link string) bool {
	switch feature {
	case "serial":
		return link == cmdline.LinkSerial || link == cmdline.LinkAuto
	case "vsock":
		return link == cmdline.LinkVsock || link == cmdline.LinkAuto
	}
	return true
}

// loadModules inserts the modules that the image lists, in its order. It goes
// on after a failure: what depends on the module will fail too, and name it.
func (b *boot) loadModules() (string, error) {
	list, err := readFile(b.path(modulesPath), maxModuleList)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	lines, err := parseModules(list)
	if err != nil {
		return "", err
	}
	var done, loaded, failed []string
	for _, l := range lines {
		if !wanted(l.feature, b.line.Link) || slices.Contains(done, l.path) {
			continue
		}
		done = append(done, l.path)
		if err := b.loadModule(l.path); err != nil {
			failed = append(failed, err.Error())
			continue
		}
		loaded = append(loaded, moduleName(l.path))
	}
	if len(failed) > 0 {
		return "", errors.New(strings.Join(failed, "; "))
	}
	if len(loaded) == 0 {
		return "", nil
	}
	return strings.Join(loaded, " "), nil
}

// loadModule inserts one module. One that is there already is fine.
func (b *boot) loadModule(path string) error {
	f, err := os.Open(b.path(path))
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = b.sys.FinitModule(int(f.Fd()), "", flags)
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case flags != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)):
		return fmt.Errorf("load module %s: %w: this kernel does not unpack it; pack the image with guestinit", path, err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("load module %s: %w: a module it needs is missing", path, err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("load module %s: %w: it is for another kernel", path, err)
	}
	return fmt.Errorf("load module %s: %w", path, err)
}

// moduleName is the name of a module as lsmod shows it.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
