package initramfs

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"
)

// modinfo is what a module says about its dependencies in .modinfo.
type modinfo struct {
	name    string
	depends []string // must be loaded before
	softPre []string // should be loaded before, where there is one
}

// parseModinfo reads the NUL-separated "key=value" strings of a .modinfo
// section (include/linux/moduleparam.h of Linux).
func parseModinfo(section []byte) modinfo {
	var m modinfo
	for entry := range bytes.SplitSeq(section, []byte{0}) {
		key, value, ok := strings.Cut(string(entry), "=")
		if !ok {
			continue
		}
		switch key {
		case "name":
			m.name = moduleName(value)
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				m.depends = addModule(m.depends, name)
			}
		case "softdep":
			for _, name := range softPre(value) {
				m.softPre = addModule(m.softPre, name)
			}
		}
	}
	return m
}

func addModule(list []string, name string) []string {
	name = moduleName(strings.TrimSpace(name))
	if name == "" || slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}

// softPre returns the modules after "pre:" in a softdep such as
// "pre: crc32c libcrc32c post: foo" (modprobe.d(5)).
func softPre(value string) []string {
	var out []string
	pre := false
	for _, word := range strings.Fields(value) {
		switch {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre:
			out = append(out, word)
		}
	}
	return out
}

// moduleName gives the one spelling of a module's name that lsmod uses.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// readModinfo reads .modinfo out of a module's ELF image.
func readModinfo(image []byte) (modinfo, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return modinfo{}, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return modinfo{}, fmt.Errorf("no .modinfo section")
	}
	data, err := s.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf("read .modinfo: %w", err)
	}
	return parseModinfo(data), nil
}
