package scenario

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
)

// tree is the cgroups of a run, below one directory of its own.
type tree struct {
	base  string   // the directory; "" until the first cgroup is needed
	needs []string // controllers that the spec uses
	cells []*cell  // in order of birth
	undo  []func() error
	note  func(format string, args ...any)
}

// cell is one cgroup.
type cell struct {
	name   string // path in the spec
	dir    string
	step   int
	cpus   []int  // of its cpuset; nil for those around it
	noted  bool   // that it cannot use all of them
	high   string // of memory.high, if the spec sets it
	frozen bool
}

// newTree looks through the spec for what its cgroups need.
func newTree(s *spec.Spec, note func(string, ...any)) *tree {
	t := &tree{note: note}
	need := func(controller string) {
		if !slices.Contains(t.needs, controller) {
			t.needs = append(t.needs, controller)
		}
	}
	s.EachCgroup(func(c *spec.Cgroup) {
		if c.Cpuset != nil {
			need("cpuset")
		}
		for _, f := range settings(c) {
			need(controllerOf(f.file))
		}
	})
	s.EachOp(func(o *spec.Op) {
		if o.SetCpuset != nil || o.ClearCpuset != "" || o.SwapCpusets != nil {
			need("cpuset")
		}
	})
	return t
}

// find is the cgroup of a name, or nil.
func (t *tree) find(name string) *cell {
	for _, c := range t.cells {
		if c.name == name {
			return c
		}
	}
	return nil
}

// dir is the directory of a cgroup; "" for the name "".
func (t *tree) dir(name string) string {
	if c := t.find(name); c != nil {
		return c.dir
	}
	return ""
}

// cpus is the CPUs that a cgroup can use: of its cpuset those that the cgroups
// around it can, or all of theirs if that is none, as the kernel has it; nil if no
// cpuset says anything.
func (t *tree) cpus(name string) (cpus []int) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		cpus = t.cpus(name[:i])
	}
	c := t.find(name)
	if c == nil || c.cpus == nil {
		return cpus
	}
	if cpus == nil {
		return c.cpus
	}
	if both := intersect(c.cpus, cpus); len(both) > 0 {
		return both
	}
	return cpus
}

// intersect is what is in both.
func intersect(a, b []int) []int {
	return slices.DeleteFunc(slices.Clone(a), func(cpu int) bool { return !slices.Contains(b, cpu) })
}

// noteLess says once that a cgroup cannot use all of its cpuset.
func (t *tree) noteLess(c *cell) {
	if can := t.cpus(c.name); c.cpus != nil && !c.noted && !slices.Equal(can, c.cpus) {
		c.noted = true
		t.note("cgroup %s: its cpuset is %s, but those around it leave it %s", c.name, spec.CPUList(c.cpus), spec.CPUList(can))
	}
}

// frozen tells whether tasks in the cgroup stand still.
func (t *tree) frozen(name string) bool {
	return slices.ContainsFunc(t.cells, func(c *cell) bool { return c.frozen && within(name, c.name) })
}

// within tells whether a cgroup is another or inside of it.
func within(name, outer string) bool {
	return name == outer || strings.HasPrefix(name, outer+"/")
}

// add makes a cgroup, without those inside of it.
func (t *tree) add(c *spec.Cgroup, name string, step int, cpus []int) error {
	if err := t.open(); err != nil {
		return err
	}
	outer := t.base
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		outer = t.dir(name[:i])
	}
	if err := t.enable(outer, c.Optional); err != nil {
		return fmt.Errorf("cgroup %s: %w", name, err)
	}
	x := &cell{name: name, dir: outer + "/" + filepath.Base(name), step: step, cpus: cpus}
	if c.MemoryHigh != nil {
		x.high = c.MemoryHigh.String()
	}
	if err := os.Mkdir(x.dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup %s: %w", name, err)
	}
	t.cells = append(t.cells, x)
	t.noteLess(x)
	files := settings(c)
	if cpus != nil {
		files = append([]setting{{"cpuset.cpus", spec.CPUList(cpus).String()}}, files...)
	}
	for _, f := range files {
		err := writeFile(x.dir, f.file, f.value)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOENT) && c.Optional:
			t.note("cgroup %s: no %s here: the kernel lacks %s", name, f.file, kernelOption(f.file))
		case errors.Is(err, unix.ENOENT):
			return fmt.Errorf("cgroup %s: %w: the kernel lacks %s; leave it out, or make the cgroup optional", name, err, kernelOption(f.file))
		default:
			return fmt.Errorf("cgroup %s: %w", name, err)
		}
	}
	return nil
}

// open makes the directory of the run.
func (t *tree) open() error {
	if t.base != "" {
		return nil
	}
	root, own, err := spawn.Cgroup2()
	if err != nil {
		return err
	}
	at := filepath.Join(root, own)
	if unix.Geteuid() == 0 {
		at = root
	}
	base := filepath.Join(at, fmt.Sprintf("guestinit-%d", os.Getpid()))
	switch err := os.Mkdir(base, 0o755); {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("make cgroup %s: %w: a run of that process id was killed before it could remove it; remove it with those inside: find %s -depth -type d -delete", base, cause(err), base)
	case err != nil:
		return fmt.Errorf("make cgroup %s: %w; run as root, or in a cgroup of its own: systemd-run --user --scope -p Delegate=yes", base, cause(err))
	}
	t.base = base
	if at != root && len(t.needs) > 0 {
		if err := t.stepAside(at); err != nil {
			return err
		}
	}
	return t.enable(at, true)
}

// stepAside moves this process to a leaf, because the kernel lets no cgroup with
// processes distribute what it has.
func (t *tree) stepAside(own string) error {
	leaf := fmt.Sprintf("%s/guestinit-%d-self", own, os.Getpid())
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	pid := strconv.Itoa(os.Getpid())
	t.undo = append(t.undo, func() error {
		return errors.Join(writeFile(own, "cgroup.procs", pid), os.Remove(leaf))
	})
	return writeFile(leaf, "cgroup.procs", pid)
}

// enable lets the cgroups inside dir have the controllers that the spec needs.
// What is not to be had is an error, unless it is optional.
func (t *tree) enable(dir string, optional bool) error {
	if len(t.needs) == 0 {
		return nil
	}
	have, err := fields(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	on, err := fields(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	for _, name := range t.needs {
		switch {
		case slices.Contains(on, name):
		case !slices.Contains(have, name):
			if !optional {
				return errors.New(missing(dir, name))
			}
		default:
			if err := t.switchOn(dir, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// switchOn enables a controller, and has it disabled again at the end where the
// directory stays.
func (t *tree) switchOn(dir, name string) error {
	err := writeFile(dir, "cgroup.subtree_control", "+"+name)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("enable controller %s in %s: %w: it has processes of its own; run as root of the machine, or in a cgroup of its own: systemd-run --scope -p Delegate=yes", name, dir, err)
	}
	if err != nil {
		return fmt.Errorf("enable controller %s in %s: %w", name, dir, err)
	}
	if !within(dir, t.base) {
		t.undo = append(t.undo, func() error { return writeFile(dir, "cgroup.subtree_control", "-"+name) })
	}
	return nil
}

// missing says why a controller is not to be had.
func missing(dir, name string) string {
	table, _ := os.ReadFile("/proc/cgroups")
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) == 4 && (f[0] == name || f[0] == "blkio" && name == "io") {
			if f[1] != "0" {
				return fmt.Sprintf("controller %s is with a hierarchy of cgroup v1 on this machine; boot it with cgroup_no_v1=%s, or use guestinit run", name, f[0])
			}
			return fmt.Sprintf("controller %s is not delegated to %s: it is not in its cgroup.controllers", name, dir)
		}
	}
	return fmt.Sprintf("the kernel has no controller %s; leave its files out, or make the cgroup optional", name)
}

// freeze stops or continues the tasks of a cgroup.
func (t *tree) freeze(c *cell, on bool) error {
	value, line := "0", "frozen 0"
	if on {
		value, line = "1", "frozen 1"
	}
	if err := writeFile(c.dir, "cgroup.freeze", value); err != nil {
		return fmt.Errorf("cgroup %s: %w", c.name, err)
	}
	c.frozen = on
	if err := awaitEvent(c.dir, line); err != nil && on {
		t.note("cgroup %s: freeze: %v", c.name, err)
	}
	return nil
}

// thaw lets the tasks of a cgroup go on, whatever of it and around it is frozen,
// and whoever froze it.
func (t *tree) thaw(name string) error {
	var errs []error
	for _, c := range t.cells {
		if (within(name, c.name) || within(c.name, name)) && (c.frozen || frozenByAnother(c.dir)) {
			errs = append(errs, t.freeze(c, false))
		}
	}
	return errors.Join(errs...)
}

// loosen lifts memory.high of a cgroup and of those around it, until the function
// that it returns is called. The kernel holds tasks above it back for up to two
// seconds at a time, whoever wants them to stop.
func (t *tree) loosen(name string) (restore func()) {
	var held []*cell
	for _, c := range t.cells {
		if c.high != "" && (within(name, c.name) || within(c.name, name)) && writeFile(c.dir, "memory.high", "max") == nil {
			held = append(held, c)
		}
	}
	return func() {
		for _, c := range held {
			if err := writeFile(c.dir, "memory.high", c.high); err != nil {
				t.note("cgroup %s: %v", c.name, err)
			}
		}
	}
}

func frozenByAnother(dir string) bool {
	state, err := fields(dir, "cgroup.freeze")
	return err == nil && len(state) == 1 && state[0] == "1"
}

// setCPUs gives a cgroup a cpuset; none is that of the cgroup around it. Kernels
// that let no cpuset with tasks become empty (ENOSPC; 6.1 and 6.12 do) are told
// the CPUs that the cgroup around it has now.
func (t *tree) setCPUs(c *cell, cpus []int) error {
	err := writeFile(c.dir, "cpuset.cpus", spec.CPUList(cpus).String()+"\n")
	if len(cpus) == 0 && errors.Is(err, unix.ENOSPC) {
		var around []string
		if around, err = fields(filepath.Dir(c.dir), "cpuset.cpus.effective"); err == nil {
			err = writeFile(c.dir, "cpuset.cpus", strings.Join(around, "")+"\n")
		}
	}
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", c.name, err)
	}
	c.cpus = cpus
	for _, x := range t.cells {
		if within(x.name, c.name) {
			t.noteLess(x)
		}
	}
	return nil
}

// moveRounds bounds how often the list of tasks is read: they may fork meanwhile.
const moveRounds = 10

// move moves all processes of a cgroup to another.
func (t *tree) move(from, to *cell) error {
	for range moveRounds {
		pids, err := fields(from.dir, "cgroup.procs")
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", from.name, err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := writeFile(to.dir, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %s from cgroup %s to %s: %w", pid, from.name, to.name, err)
			}
		}
	}
	return fmt.Errorf("move tasks from cgroup %s to %s: new ones come faster than they are moved", from.name, to.name)
}

// remove removes the cgroups that the function picks, the last one first. One
// that cannot be removed is left for close.
func (t *tree) remove(pick func(*cell) bool) error {
	var errs []error
	for i := len(t.cells) - 1; i >= 0; i-- {
		c := t.cells[i]
		if !pick(c) {
			continue
		}
		if err := spawn.RemoveCgroup(c.dir); err != nil { // what is frozen can be killed all the same
			errs = append(errs, fmt.Errorf("cgroup %s: %w", c.name, err))
			continue
		}
		t.cells = slices.Delete(t.cells, i, i+1)
	}
	return errors.Join(errs...)
}

// close removes everything and undoes what was changed outside.
func (t *tree) close() error {
	err := t.remove(func(*cell) bool { return true })
	t.cells = nil
	if t.base != "" {
		if baseErr := spawn.RemoveCgroup(t.base); err == nil {
			err = baseErr
		}
		t.base = ""
	}
	errs := []error{err}
	for i := len(t.undo) - 1; i >= 0; i-- {
		errs = append(errs, t.undo[i]())
	}
	t.undo = nil
	return errors.Join(errs...)
}
