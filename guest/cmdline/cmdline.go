package cmdline

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits of what Parse accepts; x86 kernels themselves keep 2047 bytes.
const (
	MaxLine   = 64 << 10 // bytes of the whole line
	MaxParams = 1024     // parameters, the kernel's own included
)

// The keys of guestinit.
const (
	KeySpec     = "guestinit.spec"     // where the spec is: SpecLink, SpecImage, or the spec itself (EncodeSpec)
	KeyLink     = "guestinit.link"     // the host link: LinkVsock, LinkSerial, LinkNone, or LinkAuto (the default)
	KeyDeadline = "guestinit.deadline" // of the run in the guest, as Go writes durations
	KeyQuiet    = "guestinit.quiet"    // 1 or nothing: no line per boot step on the console
)

// The words for KeySpec.
const (
	SpecLink  = "link"  // the host sends it
	SpecImage = "image" // it stands in the image
)

// The words for KeyLink.
const (
	LinkAuto   = "auto"   // vsock where a host answers, else serial where there is a port, else none
	LinkVsock  = "vsock"  // a port of the host over virtio-vsock; "vsock:PORT" names it
	LinkSerial = "serial" // the virtio-serial port of guestinit
	LinkNone   = "none"   // no host: the report goes to the console
)

// The range of KeyDeadline.
const (
	MinDeadline = 100 * time.Millisecond
	MaxDeadline = 7 * 24 * time.Hour
)

// Param is one parameter of a kernel command line.
type Param struct {
	Key      string
	Value    string
	HasValue bool // there was a "="
}

// Split cuts a kernel command line into parameters with the kernel's rules
// (next_arg in lib/cmdline.c): white space separates, double quotes protect it,
// quotes around a value or a whole parameter are dropped, and nothing escapes
// a quote. It stops at "--", after which arguments of init follow.
func Split(line string) []Param {
	var params []Param
	for {
		line = strings.TrimLeftFunc(line, isSpace)
		if line == "" {
			return params
		}
		var word string
		word, line = nextWord(line)
		if word == "--" {
			return params
		}
		params = append(params, parseWord(word))
	}
}

// nextWord cuts the first word off a line that does not begin with space.
func nextWord(line string) (word, rest string) {
	quoted := false
	for i := range len(line) {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case !quoted && isSpace(rune(line[i])):
			return line[:i], line[i:]
		}
	}
	return line, ""
}

func parseWord(word string) Param {
	if strings.HasPrefix(word, `"`) {
		word = strings.TrimSuffix(word[1:], `"`)
	}
	// As in the kernel, a "=" at the front is part of the key.
	at := -1
	if len(word) > 1 {
		at = strings.IndexByte(word[1:], '=')
	}
	if at < 0 {
		return Param{Key: word}
	}
	value := word[at+2:]
	if strings.HasPrefix(value, `"`) {
		value = strings.TrimSuffix(value[1:], `"`)
	}
	return Param{Key: word[:at+1], Value: value, HasValue: true}
}

// isSpace is isspace of the kernel for ASCII.
func isSpace(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }

// Format returns key=value as Split reads it back. A value with a quote, a NUL
// or a newline cannot stand on a command line.
func Format(key, value string) (string, error) {
	if strings.ContainsAny(value, "\"\x00\n") {
		return "", fmt.Errorf("command line: %s: value %.40q holds a quote, a NUL or a newline", key, value)
	}
	if value == "" || strings.ContainsFunc(value, isSpace) {
		return key + `="` + value + `"`, nil
	}
	return key + "=" + value, nil
}

// Line is what the guest reads from its command line.
type Line struct {
	Raw      string        // the whole line
	Spec     string        // of KeySpec; "" when absent
	Link     string        // of KeyLink, without a port; LinkAuto when absent
	Port     uint32        // of KeyLink; 0 when it names none
	Deadline time.Duration // of KeyDeadline; 0 when absent
	Quiet    bool          // of KeyQuiet
	Warnings []string      // unknown keys and repeated ones, a line each
}

// Parse reads a kernel command line. The Line is usable with an error too:
// a key whose value is refused keeps its default. The error joins all refusals.
func Parse(raw string) (Line, error) {
	l := Line{Raw: strings.TrimRightFunc(raw, isSpace), Link: LinkAuto}
	if len(raw) > MaxLine {
		return l, fmt.Errorf("command line: %d bytes, limit %d", len(raw), MaxLine)
	}
	params := Split(raw)
	if len(params) > MaxParams {
		return l, fmt.Errorf("command line: %d parameters, limit %d", len(params), MaxParams)
	}
	var errs []error
	seen := make(map[string]bool)
	for _, p := range params {
		// To the kernel "-" and "_" in a key are the same.
		key := strings.ReplaceAll(p.Key, "-", "_")
		if !strings.HasPrefix(key, "guestinit.") {
			continue
		}
		if seen[key] {
			l.Warnings = append(l.Warnings, fmt.Sprintf("command line: %s stands there more than once; the last one counts", key))
		}
		seen[key] = true
		if err := l.set(key, p); err != nil {
			errs = append(errs, fmt.Errorf("command line: %s: %w", key, err))
		}
	}
	return l, errors.Join(errs...)
}

func (l *Line) set(key string, p Param) error {
	switch key {
	case KeySpec:
		if p.Value == "" {
			return errors.New("empty; give link, image or an encoded spec")
		}
		l.Spec = p.Value
	case KeyLink:
		return l.setLink(p.Value)
	case KeyDeadline:
		d, err := time.ParseDuration(p.Value)
		if err != nil {
			return fmt.Errorf("%.40q is not a duration; write it as 30s or 5m", p.Value)
		}
		if d < MinDeadline || d > MaxDeadline {
			return fmt.Errorf("%v is outside %v to %v", d, MinDeadline, MaxDeadline)
		}
		l.Deadline = d
	case KeyQuiet:
		quiet, err := strconv.ParseBool(p.Value)
		if p.HasValue && err != nil {
			return fmt.Errorf("%.40q is not a truth value; give 0 or 1", p.Value)
		}
		l.Quiet = quiet || !p.HasValue
	default:
		l.Warnings = append(l.Warnings, fmt.Sprintf("command line: unknown key %.80q ignored; %s", key, hint(key)))
	}
	return nil
}

// setLink takes the value of KeyLink.
func (l *Line) setLink(value string) error {
	switch value {
	case LinkAuto, LinkVsock, LinkSerial, LinkNone:
		l.Link, l.Port = value, 0
		return nil
	}
	number, ok := strings.CutPrefix(value, LinkVsock+":")
	if !ok {
		return fmt.Errorf("unknown link %.40q; give %s, %s:PORT, %s, %s or %s", value, LinkVsock, LinkVsock, LinkSerial, LinkNone, LinkAuto)
	}
	port, err := strconv.ParseUint(number, 10, 32)
	if err != nil || port == 0 || port == math.MaxUint32 {
		return fmt.Errorf("%.40q is no port of a vsock; give 1 to %d", number, uint32(math.MaxUint32-1))
	}
	l.Link, l.Port = LinkVsock, uint32(port)
	return nil
}

// hint names the key that was probably meant, or all.
func hint(key string) string {
	known := []string{KeySpec, KeyLink, KeyDeadline, KeyQuiet}
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(key, k); len(key) < 80 && d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "known keys: " + strings.Join(known, ", ")
}

// editDistance is the Levenshtein distance of two short strings, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
