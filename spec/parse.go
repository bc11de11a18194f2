package spec

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The largest spec that is read, in bytes. The YAML reader takes about 200 times
// its input in memory, JSON little more than its input.
const (
	MaxSize     = 16 << 20
	MaxYAMLSize = 4 << 20
)

// Parse reads a spec in YAML or JSON: JSON if it starts as a JSON object does. It
// fills in the defaults and validates. name is the file's, for errors; they are
// joined, each an *Error with position and path, at most 20.
func Parse(data []byte, name string) (*Spec, error) { return ParseChecked(data, name, nil) }

// ParseChecked is Parse with a further check, which is made if nothing else is
// wrong. An *Error of it, alone or joined, gets the position of its path.
func ParseChecked(data []byte, name string, check func(*Spec) error) (*Spec, error) {
	return parse(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), name, looksLikeJSON(data), check)
}

// ParseJSON reads a spec in JSON, as (*Spec).JSON writes it, with the checks of
// Parse.
func ParseJSON(data []byte) (*Spec, error) { return parse(data, "spec", true, nil) }

func parse(data []byte, name string, isJSON bool, check func(*Spec) error) (*Spec, error) {
	read, limit := readYAML, MaxYAMLSize
	if isJSON {
		read, limit = readJSON, MaxSize
	}
	if len(data) > limit {
		return nil, &Error{Name: name, Msg: fmt.Sprintf("is %d bytes long; at most %d, or %d as JSON", len(data), limit, MaxSize)}
	}
	if !utf8.Valid(data) {
		return nil, &Error{Name: name, Msg: "is not UTF-8 text"}
	}
	root, err := read(data)
	if err != nil {
		e := &Error{Name: name, Msg: err.Error()}
		var s *syntaxError
		if errors.As(err, &s) {
			e.Line, e.Col = s.line, s.col
		}
		return nil, e
	}
	d := decoder{name: name, at: map[string]*node{}, broken: map[string]bool{}, left: maxNodes}
	s := new(Spec)
	d.spec(root, s)
	s.SetDefaults()
	d.validate(s)
	if check != nil && len(d.errs) == 0 {
		d.locate(check(s))
	}
	if len(d.errs) > 0 {
		return nil, joinErrors(d.errs)
	}
	return s, nil
}

// looksLikeJSON reports whether data starts with "{" and then a quote or "}". A
// YAML flow mapping with quoted keys is JSON, or near enough to be told so.
func looksLikeJSON(data []byte) bool {
	s := strings.TrimLeft(string(data[:min(len(data), 4096)]), "\ufeff \t\r\n")
	if !strings.HasPrefix(s, "{") {
		return false
	}
	s = strings.TrimLeft(s[1:], " \t\r\n")
	return s == "" || s[0] == '"' || s[0] == '}'
}

// validate adds the errors of Validate, but for what is broken already.
func (d *decoder) validate(s *Spec) {
	for _, e := range s.check() {
		if d.isBroken(e.Path) {
			continue
		}
		e.Name = d.name
		e.Line, e.Col = d.position(e.Path)
		d.errs = append(d.errs, e)
	}
}

// locate adds the errors of a check, with the positions of their paths.
func (d *decoder) locate(err error) {
	switch e := err.(type) {
	case nil:
	case *Error:
		at := *e
		at.Name = d.name
		at.Line, at.Col = d.position(e.Path)
		d.errs = append(d.errs, &at)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			d.locate(one)
		}
	default:
		d.errs = append(d.errs, &Error{Name: d.name, Msg: err.Error(), cause: err})
	}
}

// isBroken reports whether path or an object around it is broken. An element of
// a list is broken only by errors of its own, not by those around the list.
func (d *decoder) isBroken(path string) bool {
	for ; path != ""; path = parentPath(path) {
		if d.broken[path] {
			return true
		}
		if strings.HasSuffix(path, "]") {
			return false
		}
	}
	return d.broken[""]
}

// position is where the field of a path stands, or what is around it.
func (d *decoder) position(path string) (line, col int) {
	for {
		if n := d.at[path]; n != nil {
			return n.line, n.col
		}
		if path == "" {
			return 0, 0
		}
		path = parentPath(path)
	}
}
