package worker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/spec"
)

// MaxText bounds a parameter of kind Text, in bytes: a path.
const MaxText = 1024

func parseBool(v any) (uint64, error) {
	b, ok := v.(bool)
	if !ok {
		return 0, fmt.Errorf("%v is neither true nor false", v)
	}
	if b {
		return 1, nil
	}
	return 0, nil
}

func parseText(v any) (string, error) {
	s, ok := v.(string)
	switch {
	case !ok:
		return "", fmt.Errorf("%v is no text, quote it", v)
	case len(s) > MaxText:
		return "", fmt.Errorf("%d bytes are too many, the limit is %d", len(s), MaxText)
	case strings.ContainsRune(s, 0):
		return "", fmt.Errorf("%q has a NUL byte", s)
	}
	return s, nil
}

// parseNodes reads a list such as "0-3,8", or one number, into a bit per node.
func parseNodes(v any) (uint64, error) {
	text, ok := v.(string)
	if !ok {
		n, err := parseCount(v)
		if err != nil {
			return 0, fmt.Errorf("%v is no list of nodes, write it as 0-3,8", v)
		}
		text = fmt.Sprint(n)
	}
	if text == "" {
		return 0, nil
	}
	nodes, err := spec.ParseCPUList(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no list of nodes, write it as 0-3,8: %w", text, err)
	}
	var mask uint64
	for _, n := range nodes {
		if n >= bare.MaxNodes {
			return 0, fmt.Errorf("node %d is out of range, use 0 to %d", n, bare.MaxNodes-1)
		}
		mask |= 1 << n
	}
	return mask, nil
}

func formatNodes(mask uint64) string {
	var list spec.CPUList
	for n := range bare.MaxNodes {
		if mask&(1<<n) != 0 {
			list = append(list, n)
		}
	}
	return list.String()
}

// parsePhases reads a list of {NAME: DURATION}.
func (p *Param) parsePhases(v any) ([]uint64, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > MaxPhases {
		return nil, fmt.Errorf("%v is no list of 1 to %d phases, write them as [{spin: 10ms}, {sleep: 5ms}]", v, MaxPhases)
	}
	phases := make([]uint64, len(list))
	for i, item := range list {
		phase, err := p.parsePhase(item)
		if err != nil {
			return nil, spec.At(fmt.Sprintf("[%d]", i), err)
		}
		phases[i] = phase
	}
	return phases, nil
}

func (p *Param) parsePhase(v any) (uint64, error) {
	object, ok := v.(map[string]any)
	if !ok || len(object) != 1 {
		return 0, errors.New("a phase is one name with a duration, such as {spin: 10ms}")
	}
	for name, value := range object {
		what := slices.Index(p.Values, name)
		if what < 0 {
			return 0, fmt.Errorf("unknown phase %q%s; use one of %s", name, didYouMean(name, p.Values), strings.Join(p.Values, ", "))
		}
		ns, err := parseDuration(value)
		if err != nil {
			return 0, spec.At(name, err)
		}
		span := Param{Kind: Duration}
		if ns < p.Min || ns > p.Max {
			return 0, spec.At(name, fmt.Errorf("%s is out of range, use %s to %s", span.Format(ns), span.Format(p.Min), span.Format(p.Max)))
		}
		return packPhase(what, ns), nil
	}
	return 0, nil // not reached: the object has a member
}

// DefaultText writes the default of the parameter as a spec would.
func (p *Param) DefaultText() string {
	switch p.Kind {
	case Phases:
	case Text:
		return p.Text
	default:
		return p.Format(p.Default)
	}
	parts := make([]string, len(p.Phases))
	for i, phase := range p.Phases {
		what, ns := unpackPhase(phase)
		span := Param{Kind: Duration}
		parts[i] = fmt.Sprintf("{%s: %s}", p.Values[what], span.Format(ns))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// maxTexts bounds a parameter of kind Texts or Pairs, in bytes together.
const maxTexts = 64 << 10

// parseTexts reads a list of texts, or one text.
func (p *Param) parseTexts(v any) ([]string, error) {
	list, ok := v.([]any)
	if text, one := v.(string); one {
		list, ok = []any{text}, true
	}
	if !ok || uint64(len(list)) < p.Min || uint64(len(list)) > p.Max {
		return nil, fmt.Errorf("%v is no list of %d to %d texts, write it as [one, \"2\"]", v, p.Min, p.Max)
	}
	texts := make([]string, len(list))
	for i, item := range list {
		var err error
		if texts[i], err = parseText(item); err != nil {
			return nil, spec.At(fmt.Sprintf("[%d]", i), err)
		}
	}
	return texts, checkLength(texts)
}

// parsePairs reads texts by name, as the environment of a program has them.
func (p *Param) parsePairs(v any) ([]string, error) {
	object, ok := v.(map[string]any)
	if !ok || uint64(len(object)) > p.Max {
		return nil, fmt.Errorf("%v is no object of at most %d texts by name, write it as {NAME: text}", v, p.Max)
	}
	pairs := make([]string, 0, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, fmt.Errorf("%q is no name of a variable", name)
		}
		text, err := parseText(object[name])
		if err != nil {
			return nil, spec.At(name, err)
		}
		pairs = append(pairs, name+"="+text)
	}
	return pairs, checkLength(pairs)
}

func checkLength(texts []string) error {
	n := 0
	for _, t := range texts {
		n += len(t) + 1
	}
	if n > maxTexts {
		return fmt.Errorf("%d bytes together are too many, the limit is %d", n, maxTexts)
	}
	return nil
}
