package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// readJSON reads one JSON value.
func readJSON(data []byte) (*node, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	j := jsonReader{d: d, data: data, left: maxNodes, line: 1}
	n, err := j.value(0)
	if err != nil {
		return nil, j.wrap(err)
	}
	line, col := j.position()
	if _, err := d.Token(); err != io.EOF {
		return nil, syntaxErrorf(line, col, "data after the end of the spec")
	}
	return n, nil
}

// jsonReader turns JSON tokens into nodes with positions.
type jsonReader struct {
	d    *json.Decoder
	data []byte
	left int
	at   int // data[:at] has been counted
	line int // of at
	bol  int // where that line begins
}

// wrap gives an error of the JSON decoder its position.
func (j *jsonReader) wrap(err error) error {
	var own *syntaxError
	if errors.As(err, &own) {
		return err
	}
	line, col := j.position()
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return syntaxErrorf(line, col, "ends too early; a bracket or a quote is not closed")
	}
	return syntaxErrorf(line, col, "%s", strings.TrimPrefix(err.Error(), "json: "))
}

// position is where the next token starts.
func (j *jsonReader) position() (line, col int) {
	off := int(j.d.InputOffset())
	for off < len(j.data) && strings.IndexByte(" \t\r\n,:", j.data[off]) >= 0 {
		off++
	}
	for ; j.at < off; j.at++ {
		if j.data[j.at] == '\n' {
			j.line, j.bol = j.line+1, j.at+1
		}
	}
	return j.line, utf8.RuneCount(j.data[j.bol:off]) + 1
}

func (j *jsonReader) value(depth int) (*node, error) {
	line, col := j.position()
	if j.left--; j.left < 0 || depth > maxDepth {
		return nil, syntaxErrorf(line, col, "nests deeper than %d levels or has more than %d values", maxDepth, maxNodes)
	}
	t, err := j.d.Token()
	if err != nil {
		return nil, err
	}
	n := &node{line: line, col: col}
	switch t := t.(type) {
	case nil:
		n.kind, n.text = kindNull, "null"
	case bool:
		n.kind, n.value, n.text = kindBool, t, strconv.FormatBool(t)
	case string:
		n.kind, n.value, n.text = kindString, t, t
	case json.Number:
		n.kind, n.text = kindNumber, t.String()
		if n.value = number(t.String()); n.value == nil {
			return nil, syntaxErrorf(line, col, "number %s is out of range", quote(n.text))
		}
	case json.Delim:
		if t == '[' {
			err = j.list(n, depth)
		} else {
			err = j.object(n, depth)
		}
	}
	return n, err
}

func (j *jsonReader) list(n *node, depth int) error {
	n.kind = kindList
	for j.d.More() {
		item, err := j.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, err := j.d.Token()
	return err
}

func (j *jsonReader) object(n *node, depth int) error {
	n.kind = kindObject
	seen := map[string]bool{}
	for j.d.More() {
		line, col := j.position()
		t, err := j.d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if seen[key] {
			return syntaxErrorf(line, col, "key %s stands twice in one object", quote(key))
		}
		seen[key] = true
		value, err := j.value(depth + 1)
		if err != nil {
			return err
		}
		if n.members = append(n.members, member{key, value, line, col}); len(n.members) > maxKeys {
			return syntaxErrorf(line, col, "object has more than %d keys", maxKeys)
		}
	}
	_, err := j.d.Token()
	return err
}

// number is a JSON number: int64 or uint64 if it is written as an integer, else
// float64; nil if it does not fit.
func number(s string) any {
	if strings.ContainsAny(s, ".eE") {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
		return nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return u
	}
	return nil
}

// JSON is the canonical form of s: compact, parameters sorted, durations and CPU
// lists as text. ParseJSON reads it back as the same Spec.
func (s *Spec) JSON() ([]byte, error) { return json.Marshal(s) }

// UnmarshalJSON reads s as ParseJSON does.
func (s *Spec) UnmarshalJSON(data []byte) error {
	p, err := ParseJSON(data)
	if err == nil {
		*s = *p
	}
	return err
}

// MarshalJSON writes the parameters beside the type.
func (w Work) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`{"type":`)
	if err := appendJSON(&b, w.Type); err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(w.Params)) {
		b.WriteByte(',')
		if err := appendJSON(&b, k); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := appendJSON(&b, w.Params[k]); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// appendJSON writes v; a float64 keeps a point or an exponent, so that it is
// read back as a float64.
func appendJSON(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return errors.New("number is not finite")
		}
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		b.WriteString(s)
		return nil
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case map[string]any:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, k); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := appendJSON(b, v[k]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	}
	text, err := json.Marshal(v)
	b.Write(text)
	return err
}
