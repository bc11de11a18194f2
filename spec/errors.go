package spec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxErrors bounds how many errors of one spec are reported.
const maxErrors = 20

// Error is one thing wrong with a spec.
type Error struct {
	Name string // of the file, or "spec"
	Line int    // from 1; 0 if not known
	Col  int    // from 1, in characters
	Path string // of the field, "groups[1].affinity.exact"; "" for the whole
	Msg  string // what is wrong, and the remedy

	cause error
}

// Error is "NAME:LINE:COL: PATH: MSG", without what is not known.
func (e *Error) Error() string {
	s := e.Name
	if e.Line > 0 {
		s += fmt.Sprintf(":%d:%d", e.Line, e.Col)
	}
	for _, part := range []string{e.Path, e.Msg} {
		if s != "" && part != "" {
			s += ": "
		}
		s += part
	}
	return s
}

// At is an error of the field of a path, or of one below it if err is an *Error
// already. Errors that are joined stay so, each with its own path.
func At(path string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		below := *e
		switch {
		case e.Path == "" || path == "" || e.Path[0] == '[':
			below.Path = path + e.Path
		default:
			below.Path = path + "." + e.Path
		}
		return &below
	case interface{ Unwrap() []error }:
		var errs []error
		for _, one := range e.Unwrap() {
			errs = append(errs, At(path, one))
		}
		return errors.Join(errs...)
	}
	return &Error{Path: path, Msg: err.Error(), cause: err}
}

// Unwrap is the error that At was given, if it was none of this package.
func (e *Error) Unwrap() error { return e.cause }

// joinErrors is errs as one error, or nil: in the order of the text, and not more
// than a reader can use.
func joinErrors(errs []*Error) error {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	var list []error
	for i, e := range errs {
		if i == maxErrors {
			more := "errors"
			if len(errs)-i == 1 {
				more = "error"
			}
			list = append(list, fmt.Errorf("%s: %d more %s", e.Name, len(errs)-i, more))
			break
		}
		list = append(list, e)
	}
	return errors.Join(list...)
}

// quote is s for an error message: quoted, and cut if it is long.
func quote(s string) string {
	const longest = 60
	if len(s) <= longest {
		return strconv.Quote(s)
	}
	n := longest
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strconv.Quote(s[:n]) + "..."
}

// parentPath is the path of the object that holds path.
func parentPath(path string) string {
	return path[:max(strings.LastIndexByte(path, '.'), 0)]
}
