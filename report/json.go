package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// inlineJSON is the longest JSON object or list that WriteJSON keeps on one line.
const inlineJSON = 100

// WriteJSON writes r as one JSON object, indented, short objects and lists on one
// line. Buckets and Samples appear only with samples. Workers are written one by
// one. Names and units are stable within a SchemaVersion; json.Unmarshal into a
// Report reads it back, but for Latency.Sum.
func WriteJSON(w io.Writer, r *Report, samples bool) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	err := writeJSON(bw, r, samples)
	if err == nil {
		err = bw.Flush()
	}
	if err != nil {
		return fmt.Errorf("write report as JSON: %w", err)
	}
	return nil
}

func writeJSON(w *bufio.Writer, r *Report, samples bool) error {
	in := indenter{w: w}
	in.raw("{")
	for i, f := range []struct {
		key   string
		value any
		skip  bool
	}{
		{"schema_version", r.SchemaVersion, false},
		{"verdict", r.Verdict, false},
		{"failures", r.Failures, len(r.Failures) == 0},
		{"notes", r.Notes, len(r.Notes) == 0},
		{"checks", r.Checks, len(r.Checks) == 0},
		{"run", r.Run, false},
	} {
		if f.skip {
			continue
		}
		if i > 0 {
			in.raw(",")
		}
		if err := in.field(f.key, f.value); err != nil {
			return err
		}
	}
	in.list("groups", len(r.Groups), func(i int) any { return r.Groups[i].forJSON(samples) })
	if len(r.Cgroups) > 0 {
		in.list("cgroups", len(r.Cgroups), func(i int) any { return r.Cgroups[i].forJSON(samples) })
	}
	if len(r.Phases) > 0 {
		in.list("phases", len(r.Phases), func(i int) any {
			p := r.Phases[i]
			p.Groups = make([]Group, len(p.Groups))
			for j := range p.Groups {
				p.Groups[j] = r.Phases[i].Groups[j].forJSON(samples)
			}
			return p
		})
	}
	in.list("workers", len(r.Workers), func(i int) any {
		k := r.Workers[i]
		if len(k.Phases) > 0 {
			k.Phases = slices.Clone(k.Phases)
			for j := range k.Phases {
				p := &k.Phases[j]
				p.WakeLatency, p.TimerLatency = p.WakeLatency.forJSON(samples), p.TimerLatency.forJSON(samples)
			}
		}
		k.WakeLatency, k.IterationCost, k.TimerLatency = k.WakeLatency.forJSON(samples), k.IterationCost.forJSON(samples), k.TimerLatency.forJSON(samples)
		return k
	})
	in.raw("\n}\n")
	return in.err
}

// forJSON is g with or without the populations of its latencies.
func (g Group) forJSON(samples bool) Group {
	g.WakeLatency, g.IterationCost, g.TimerLatency = g.WakeLatency.forJSON(samples), g.IterationCost.forJSON(samples), g.TimerLatency.forJSON(samples)
	return g
}

// forJSON is l with or without its population.
func (l *Latency) forJSON(samples bool) *Latency {
	if l == nil || samples {
		return l
	}
	c := *l
	c.Buckets, c.Samples = nil, nil
	return &c
}

// indenter writes compact JSON indented. Its first error stays.
type indenter struct {
	w   *bufio.Writer
	err error
}

func (in *indenter) raw(s string) { in.w.WriteString(s) } // the error stays in the bufio.Writer until Flush

// field writes "key": value on a line of its own at depth 1.
func (in *indenter) field(key string, v any) error {
	b, err := marshal(v)
	if err != nil && in.err == nil {
		in.err = fmt.Errorf("%s: %w", key, err)
	}
	if in.err != nil {
		return in.err
	}
	in.newline(1)
	fmt.Fprintf(in.w, "%q: ", key)
	in.value(b, 1)
	return nil
}

// list writes the field key with n elements, marshalled one at a time.
func (in *indenter) list(key string, n int, element func(int) any) {
	in.raw(",")
	in.newline(1)
	fmt.Fprintf(in.w, "%q: [", key)
	for i := 0; i < n && in.err == nil; i++ {
		b, err := marshal(element(i))
		if err != nil {
			in.err = fmt.Errorf("%s[%d]: %w", key, i, err)
			return
		}
		if i > 0 {
			in.raw(",")
		}
		in.newline(2)
		in.value(b, 2)
	}
	if n > 0 {
		in.newline(1)
	}
	in.raw("]")
}

// marshal is json.Marshal that leaves <, > and & readable.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func (in *indenter) newline(depth int) {
	in.w.WriteByte('\n')
	for range depth {
		in.raw("  ")
	}
}

// value writes the compact JSON value b at the given depth.
func (in *indenter) value(b []byte, depth int) {
	if len(b) < 2 || b[0] != '{' && b[0] != '[' || len(b) <= inlineJSON || isFlatList(b) {
		in.spaced(b)
		return
	}
	open, end := b[0], b[len(b)-1]
	in.w.WriteByte(open)
	rest := b[1 : len(b)-1]
	for len(rest) > 0 {
		n := elementLen(rest)
		in.newline(depth + 1)
		item := rest[:n]
		if open == '{' {
			k := stringLen(item)
			in.w.Write(item[:k+1]) // key and colon
			in.w.WriteByte(' ')
			item = item[k+1:]
		}
		in.value(item, depth+1)
		if rest = rest[n:]; len(rest) > 0 {
			in.w.WriteByte(',')
			rest = rest[1:]
		}
	}
	in.newline(depth)
	in.w.WriteByte(end)
}

// spaced writes b on one line, with a space after each comma and colon.
func (in *indenter) spaced(b []byte) {
	for i := 0; i < len(b); {
		if b[i] == '"' {
			n := stringLen(b[i:])
			in.w.Write(b[i : i+n])
			i += n
			continue
		}
		in.w.WriteByte(b[i])
		if b[i] == ',' || b[i] == ':' {
			in.w.WriteByte(' ')
		}
		i++
	}
}

// isFlatList reports whether b is a list of numbers: however long, it is a line.
func isFlatList(b []byte) bool {
	return b[0] == '[' && (b[1] >= '0' && b[1] <= '9' || b[1] == '-')
}

// elementLen is the length of the first element of a list or the first member of
// an object, of which b is the inside.
func elementLen(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += stringLen(b[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// stringLen is the length of the JSON string that b starts with, quotes included.
func stringLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}
