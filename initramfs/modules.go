package initramfs

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/guestinit/guestinit/kernel"
)

// features names the drivers that each feature needs; their dependencies
// follow from the modules themselves.
func features() map[string][]string {
	return map[string][]string{
		"serial": {"virtio_pci", "virtio_console"},
		"vsock":  {"virtio_pci", "vmw_vsock_virtio_transport"},
	}
}

// featureNames returns the features to pack for, in a fixed order.
func featureNames(asked []string) ([]string, error) {
	known := slices.Sorted(maps.Keys(features()))
	if asked == nil {
		return known, nil
	}
	for _, f := range asked {
		if !slices.Contains(known, f) {
			return nil, fmt.Errorf("feature %q is not known; there are %s", f, strings.Join(known, ", "))
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(asked))), nil
}

// maxModules bounds the closure of all features.
const maxModules = 500

// packed is a module to be packed.
type packed struct {
	name  string
	path  string // relative to lib/modules/RELEASE, without a compression suffix
	image []byte
	deps  []string // names of other packed modules
}

// closure collects modules and what they depend on.
type closure struct {
	index   *moduleIndex
	release string
	mods    map[string]*packed
	order   []string // every module after those it needs
	builtin map[string]bool
}

// add adds a module and, before it, its dependencies. by names what needs it.
func (c *closure) add(name, by string) error {
	if m, ok := c.mods[name]; ok {
		if m == nil {
			return fmt.Errorf("module %s of kernel %s depends on itself, through %s", name, c.release, by)
		}
		return nil
	}
	if _, ok := c.index.builtin[name]; ok {
		c.builtin[name] = true
		return nil
	}
	file, ok, err := c.index.find(name)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("module %s, which %s needs, is neither built into kernel %s nor in %s", name, by, c.release, c.index.dir)
	}
	if len(c.mods) >= maxModules {
		return fmt.Errorf("more than %d modules to pack", maxModules)
	}
	c.mods[name] = nil // being visited
	m, err := c.load(name, file)
	if err != nil {
		return err
	}
	c.mods[name] = m
	c.order = append(c.order, name)
	return nil
}

// load reads a module and adds what it needs.
func (c *closure) load(name string, file moduleFile) (*packed, error) {
	image, err := kernel.ReadModule(path.Join(c.index.dir, file.path))
	if err != nil {
		return nil, err
	}
	info, err := readModinfo(image)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", file.path, err)
	}
	deps := info.depends
	if file.deps != nil {
		deps = file.deps
	}
	m := &packed{name: name, image: image}
	stem, _, _ := strings.Cut(file.path, ".ko")
	m.path = stem + ".ko"
	for _, dep := range info.softPre {
		if c.mods[dep] == nil && !c.available(dep) {
			continue
		}
		if err := c.depend(m, dep); err != nil {
			return nil, err
		}
	}
	for _, dep := range deps {
		if err := c.depend(m, dep); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (c *closure) depend(m *packed, dep string) error {
	if err := c.add(dep, m.name); err != nil {
		return err
	}
	if c.mods[dep] != nil {
		m.deps = append(m.deps, dep)
	}
	return nil
}

// available tells whether a module that is merely wanted can be had: soft
// dependencies name aliases and absent modules, and may be circular.
func (c *closure) available(name string) bool {
	if _, visiting := c.mods[name]; visiting {
		return false
	}
	_, ok, err := c.index.find(name)
	return ok && err == nil
}

// reach returns the modules that roots need, themselves included.
func (c *closure) reach(roots []string) map[string]bool {
	seen := make(map[string]bool)
	for queue := slices.Clone(roots); len(queue) > 0; queue = queue[1:] {
		m := c.mods[queue[0]]
		if m == nil || seen[m.name] {
			continue
		}
		seen[m.name] = true
		queue = append(queue, m.deps...)
	}
	return seen
}

// chooseModules finds the modules that the features need and enters them in
// the manifest.
func chooseModules(o Options, m *Manifest) (*closure, error) {
	names, err := featureNames(o.Features)
	if err != nil || len(names) == 0 {
		return &closure{}, err
	}
	if o.Kernel == nil || o.Kernel.Modules == "" {
		m.Notes = append(m.Notes, "no kernel modules packed: drivers for "+strings.Join(names, ", ")+" must be built into the kernel")
		return &closure{}, nil
	}
	c, err := openClosure(o.Kernel)
	if err != nil {
		return nil, err
	}
	for _, f := range names {
		for _, root := range features()[f] {
			if err := c.add(root, "feature "+f); err != nil {
				return nil, err
			}
		}
	}
	for _, f := range names {
		want := c.reach(features()[f])
		for _, name := range c.order {
			if want[name] {
				m.Modules = append(m.Modules, Module{Feature: f, Name: name, Path: c.path(name)})
			}
		}
	}
	m.BuiltIn = slices.Sorted(maps.Keys(c.builtin))
	return c, nil
}

func openClosure(k *kernel.Kernel) (*closure, error) {
	index, err := openIndex(k.Modules)
	if err != nil {
		return nil, err
	}
	release := k.Release
	if release == "" {
		release = path.Base(k.Modules)
	}
	return &closure{index: index, release: release, mods: make(map[string]*packed), builtin: make(map[string]bool)}, nil
}

// path is where a module goes in the image.
func (c *closure) path(name string) string {
	return path.Join("/lib/modules", c.release, c.mods[name].path)
}

// moduleList renders the list that the guest reads.
func moduleList(modules []Module) []byte {
	var b bytes.Buffer
	for _, m := range modules {
		fmt.Fprintf(&b, "%s %s\n", m.Feature, m.Path)
	}
	return b.Bytes()
}

// addModules packs the modules of a closure.
func (t *tree) addModules(c *closure) error {
	for _, name := range c.order {
		info := cpio.Info{Name: c.path(name), Mode: cpio.S_IFREG | 0o644}
		if err := t.add(cpio.StaticRecord(c.mods[name].image, info), "module "+name); err != nil {
			return err
		}
	}
	return nil
}
