package worker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/guestinit/guestinit/spec"
)

// MaxRegistered bounds the work types that a program can add.
const MaxRegistered = 64

// registry holds the work types that the program added to Types. It is memory of
// the program itself and not of the heap, which forked workers do not have. A row
// is never changed once it counts.
var registry struct {
	mu   sync.Mutex
	n    int
	rows [MaxRegistered]Type
}

// Register adds a work type of the program's own, to be used by its name like any
// other: loop is what each worker runs, until its Slab says Stopped. It must be a
// top-level function that obeys the rules of the package comment; package
// walktest proves that it does. Register is to be called before the first
// workload that uses the type, and there is no way to take one back.
//
// Name, Summary, Params, GroupSize, Region, Wake, Wakes, Cost, Timer, Urgent and the modes
// that are refused are the caller's; Resource is NoResource, SharedMemory or
// PipePair, Params are of the kinds Count, Duration, Enum, Bool and Nodes. The
// error names what is wrong with the row.
func Register(t Type, loop func(s *Slab)) error {
	t.loop = loop
	if err := checkRow(&t); err != nil {
		return fmt.Errorf("register work type %q: %w", t.Name, err)
	}
	if t.Family == "" {
		t.Family = "registered"
	}
	t.Params = slices.Clone(t.Params)
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if registry.n == MaxRegistered {
		return fmt.Errorf("register work type %q: the limit is %d", t.Name, MaxRegistered)
	}
	if taken := slices.ContainsFunc(Types, func(o Type) bool { return o.Name == t.Name }); taken ||
		slices.ContainsFunc(registry.rows[:registry.n], func(o Type) bool { return o.Name == t.Name }) {
		return fmt.Errorf("register work type %q: there is one of that name", t.Name)
	}
	registry.rows[registry.n] = t
	registry.n++
	return nil
}

// All lists all work types: Types, then those that the program registered, in the
// order of the index that slabs name them by.
func All() []*Type {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	all := make([]*Type, 0, len(Types)+registry.n)
	for i := range Types {
		all = append(all, &Types[i])
	}
	for i := range registry.n {
		all = append(all, &registry.rows[i])
	}
	return all
}

// checkRow checks the row of a type that is to be registered.
func checkRow(t *Type) error {
	switch {
	case t.Name == "" || len(t.Name) > spec.MaxNameLen || strings.Trim(t.Name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return errors.New("the name is not of a-z, 0-9 and _")
	case t.Summary == "":
		return errors.New("it has no summary")
	case t.loop == nil:
		return errors.New("it has no loop")
	case !isTopLevel(t.loop):
		return errors.New("its loop is a closure or a method value, which lies in the heap; use a top-level function")
	case t.Resource != NoResource && t.Resource != SharedMemory && t.Resource != PipePair:
		return fmt.Errorf("its resource is %s; use NoResource, SharedMemory or PipePair", t.Resource)
	case t.Region != nil && t.Resource != SharedMemory:
		return errors.New("it has a region and no SharedMemory")
	case len(t.Params) > MaxParams:
		return fmt.Errorf("it has %d parameters, the limit is %d", len(t.Params), MaxParams)
	}
	seen := []string{"type"}
	for i := range t.Params {
		p := &t.Params[i]
		if slices.Contains(seen, p.Name) || p.Name == "" {
			return fmt.Errorf("parameter %d: the name %q is taken or empty", i, p.Name)
		}
		seen = append(seen, p.Name)
		if err := p.checkRow(); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
	}
	in := Instance{Type: t}
	for i := range t.Params {
		in.setDefault(i, &t.Params[i])
	}
	if n := in.GroupSize(); n > maxSet || t.Resource == PipePair && n%2 != 0 {
		return fmt.Errorf("a set has %d workers; at most %d, and an even number with PipePair", n, maxSet)
	}
	return nil
}

func (p *Param) checkRow() error {
	switch {
	case p.Kind != Count && p.Kind != Duration && p.Kind != Enum && p.Kind != Bool && p.Kind != Nodes || p.Required:
		return fmt.Errorf("a loop cannot have a value of kind %s, or one without a default", p.Kind)
	case p.Summary == "":
		return errors.New("it has no summary")
	case p.Kind == Enum && (len(p.Values) == 0 || p.Max != uint64(len(p.Values)-1)):
		return fmt.Errorf("Max is %d for %d values; the index of the last is meant", p.Max, len(p.Values))
	case p.Kind == Bool && p.Max != 1:
		return errors.New("Max is not 1")
	case p.Min > p.Default || p.Default > p.Max:
		return fmt.Errorf("the default %d is not within %d to %d", p.Default, p.Min, p.Max)
	}
	return nil
}

// lookUp finds a work type by name.
func lookUp(name string) (t *Type, index int, err error) {
	all := All()
	names := make([]string, len(all))
	for i, t := range all {
		if names[i] = t.Name; t.Name == name {
			return t, i, nil
		}
	}
	return nil, 0, spec.At("type", fmt.Errorf("unknown work type %q%s; `guestinit types` lists them", name, didYouMean(name, names)))
}
