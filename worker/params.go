package worker

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/guestinit/guestinit/spec"
)

// Instance is a work type with the values of its parameters.
type Instance struct {
	Type   *Type
	Index  int // in All
	Values [MaxParams]uint64
	Texts  [MaxParams]string   // of the parameters of kind Text
	Lists  [MaxParams][]string // of the parameters of kinds Texts and Pairs
}

// Wakes tells whether the worker at a position of its set records wake latencies.
func (in *Instance) Wakes(pos int) bool {
	return in.Type.Wake && (in.Type.Wakes == nil || in.Type.Wakes(&in.Values, pos))
}

// RegionBytes is the memory that a set of workers shares, 0 for none.
func (in *Instance) RegionBytes() uintptr {
	switch in.Type.Resource {
	case SharedMemory, PipeRing:
		if in.Type.Region != nil {
			return in.Type.Region(&in.Values)
		}
		return 4
	}
	return 0
}

// GroupSize is how many workers of the instance work together, at least 1.
func (in *Instance) GroupSize() int {
	if in.Type.GroupSize == nil {
		return 1
	}
	return max(in.Type.GroupSize(&in.Values), 1)
}

// Names lists the names of all work types in the order of All.
func Names() []string {
	all := All()
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.Name
	}
	return names
}

// Parse turns a spec's work into an instance: known type, known parameters, each
// within its range, defaults for the others. The errors are joined, each an
// *spec.Error with the path of its parameter, and say the nearest right name.
func Parse(w spec.Work) (*Instance, error) {
	t, index, err := lookUp(w.Type)
	if err != nil {
		return nil, err
	}
	in := &Instance{Type: t, Index: index}
	names := make([]string, len(t.Params))
	var errs []error
	for i := range t.Params {
		p := &t.Params[i]
		names[i] = p.Name
		in.setDefault(i, p)
		if _, given := w.Params[p.Name]; p.Required && !given {
			errs = append(errs, spec.At(p.Name, fmt.Errorf("is missing; %s wants %s", t.Name, p.Summary)))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.Params)) {
		if i := slices.Index(names, key); i < 0 {
			errs = append(errs, spec.At(key, fmt.Errorf("unknown parameter of %s%s", t.Name, accepts(key, names))))
		} else if err := in.set(i, w.Params[key]); err != nil {
			errs = append(errs, spec.At(key, err))
		}
	}
	if len(errs) == 0 && t.check != nil {
		errs = append(errs, t.check(in))
	}
	if err = errors.Join(errs...); err != nil {
		return nil, err
	}
	return in, nil
}

func (in *Instance) setDefault(i int, p *Param) {
	in.Values[i], in.Texts[i] = p.Default, p.Text
	if p.Kind == Phases {
		in.Values[i] = uint64(len(p.Phases))
		copy(in.Values[i+1:], p.Phases)
	}
}

// set gives parameter i the value of a spec.
func (in *Instance) set(i int, v any) (err error) {
	p := &in.Type.Params[i]
	switch p.Kind {
	case Text:
		in.Texts[i], err = parseText(v)
	case Texts:
		in.Lists[i], err = p.parseTexts(v)
	case Pairs:
		in.Lists[i], err = p.parsePairs(v)
	case Phases:
		var phases []uint64
		if phases, err = p.parsePhases(v); err == nil {
			in.Values[i] = uint64(len(phases))
			clear(in.Values[i+1:])
			copy(in.Values[i+1:], phases)
		}
	default:
		in.Values[i], err = p.parse(v)
	}
	return err
}

func accepts(key string, names []string) string {
	if len(names) == 0 {
		return "; it takes none"
	}
	return didYouMean(key, names) + "; it takes " + strings.Join(names, ", ")
}

func didYouMean(name string, names []string) string {
	if near := spec.Nearest(name, names); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return ""
}

// parse turns a value of a spec into the parameter's number.
func (p *Param) parse(v any) (uint64, error) {
	var n uint64
	var err error
	switch p.Kind {
	case Duration:
		n, err = parseDuration(v)
	case Enum:
		n, err = p.parseEnum(v)
	case Bool:
		n, err = parseBool(v)
	case Nodes:
		n, err = parseNodes(v)
	default:
		n, err = parseCount(v)
	}
	if err != nil {
		return 0, err
	}
	if n < p.Min || n > p.Max {
		return 0, fmt.Errorf("%s is out of range, use %s to %s", p.Format(n), p.Format(p.Min), p.Format(p.Max))
	}
	return n, nil
}

func (p *Param) parseEnum(v any) (uint64, error) {
	s, ok := v.(string)
	i := slices.Index(p.Values, s)
	if !ok || i < 0 {
		return 0, fmt.Errorf("%v is none of %s%s", v, strings.Join(p.Values, ", "), didYouMean(s, p.Values))
	}
	return uint64(i), nil
}

// Format writes a value of the parameter as a spec would.
func (p *Param) Format(n uint64) string {
	switch {
	case p.Kind == Duration && n <= math.MaxInt64:
		return shorten(time.Duration(n).String())
	case p.Kind == Enum && n < uint64(len(p.Values)):
		return p.Values[n]
	case p.Kind == Bool:
		return fmt.Sprint(n != 0)
	case p.Kind == Nodes:
		return formatNodes(n)
	case p.Kind == Text, p.Kind == Texts, p.Kind == Pairs:
		return ""
	}
	return fmt.Sprint(n)
}

// shorten takes the zeros off a duration: 24h0m0s is 24h.
func shorten(s string) string {
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func parseDuration(v any) (uint64, error) {
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf("%v is no duration, write it with a unit: 10ms, 1.5s", v)
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration, write it with a unit: 10ms, 1.5s", s)
	}
	return uint64(d), nil
}

func parseCount(v any) (uint64, error) {
	switch n := v.(type) {
	case uint64:
		return n, nil
	case int64:
		if n >= 0 {
			return uint64(n), nil
		}
	case int:
		if n >= 0 {
			return uint64(n), nil
		}
	case float64:
		if n >= 0 && n < 1<<53 && n == math.Trunc(n) {
			return uint64(n), nil
		}
	}
	return 0, fmt.Errorf("%v is no count, write a whole number from 0 up", v)
}
