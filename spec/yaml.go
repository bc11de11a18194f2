package spec

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// readYAML reads one YAML document. Aliases and merge keys are followed, tags and
// several documents are refused.
func readYAML(data []byte) (n *node, err error) {
	if err := checkShape(data); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil { // a bug in the parser is not to take a launcher down
			n, err = nil, syntaxErrorf(0, 0, "cannot be read as YAML: %v", r)
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, yamlError(err)
	}
	y := yamlReader{anchors: map[string]*node{}, left: maxNodes}
	var root *node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		n, err := y.node(doc.Body, 0)
		if err != nil {
			return nil, err
		}
		if root != nil {
			return nil, syntaxErrorf(n.line, n.col, "second document; a spec is one document")
		}
		root = n
	}
	if root == nil {
		return nil, syntaxErrorf(0, 0, "is empty; a spec has at least version and groups")
	}
	return root, nil
}

// yamlError keeps position and message of an error of the parser.
func yamlError(err error) error {
	var positioned interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &positioned) || positioned.GetToken() == nil {
		return syntaxErrorf(0, 0, "%v", err)
	}
	line, col := position(positioned.GetToken())
	return syntaxErrorf(line, col, "%s", positioned.GetMessage())
}

// checkShape refuses what the parser would take too much time or memory for: with
// the depth of nesting its memory grows with the square, with the keys of an
// object and with documents its time does.
func checkShape(data []byte) error {
	var number, open, documents int
	var keys keyCount
	for line := range bytes.Lines(data) {
		number++
		line = bytes.TrimRight(line, "\r\n")
		dashes := 0
		for i, c := range line {
			switch c {
			case '[', '{':
				open++
			case ']', '}':
				open = max(open-1, 0)
			case ',':
				if open > 0 { // what one entry nests ends with it
					dashes = 0
				}
			case '-', '?', ':', '!', '&':
				if i+1 == len(line) || strings.IndexByte(" \t!&", line[i+1]) >= 0 {
					dashes++
				}
			}
			if open > maxDepth || dashes > 4*maxDepth {
				return syntaxErrorf(number, 1, "nests deeper than %d levels", maxDepth)
			}
		}
		if bytes.HasPrefix(line, []byte("---")) {
			if documents++; documents > maxDepth {
				return syntaxErrorf(number, 1, "document %d; a spec is one document", documents)
			}
		}
		if keys.add(line); keys.work > maxKeyWork {
			return syntaxErrorf(number, 1, "has too many keys; an object has at most %d", maxKeys)
		}
	}
	return nil
}

// maxKeyWork bounds the steps that the parser takes for keys: for each one as
// many as its object has before it. It takes a second for as many.
const maxKeyWork = 32 << 20

// keyCount counts the keys of the objects that are being read, line by line: by
// their indents, the outermost one first.
type keyCount struct {
	objects []struct{ indent, keys int }
	work    int
}

func (k *keyCount) add(line []byte) {
	text := bytes.TrimLeft(line, " ")
	if len(text) == 0 || text[0] == '#' {
		return
	}
	indent := len(line) - len(text)
	last := len(k.objects) - 1
	for last >= 0 && k.objects[last].indent > indent {
		last--
	}
	k.objects = k.objects[:last+1]
	if text[0] == '-' || !bytes.Contains(text, []byte(": ")) && text[len(text)-1] != ':' {
		return
	}
	if last < 0 || k.objects[last].indent < indent {
		k.objects = append(k.objects, struct{ indent, keys int }{indent: indent})
		last++
	}
	k.objects[last].keys++
	k.work += k.objects[last].keys
}

// yamlReader turns the parser's tree into nodes.
type yamlReader struct {
	anchors map[string]*node
	left    int // nodes that may still be made
}

func (y *yamlReader) node(n ast.Node, depth int) (*node, error) {
	if n == nil {
		return &node{kind: kindNull}, nil
	}
	line, col := position(n.GetToken())
	if y.left--; y.left < 0 || depth > maxDepth {
		return nil, syntaxErrorf(line, col, "nests deeper than %d levels or has more than %d values", maxDepth, maxNodes)
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return y.object(n.Values, line, col, depth)
	case *ast.MappingValueNode:
		return y.object([]*ast.MappingValueNode{n}, line, col, depth)
	case *ast.SequenceNode:
		out := &node{kind: kindList, line: line, col: col}
		for _, v := range n.Values {
			item, err := y.node(v, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, item)
		}
		return out, nil
	case *ast.AnchorNode:
		out, err := y.node(n.Value, depth+1)
		if err == nil {
			y.anchors[n.Name.GetToken().Value] = out
		}
		return out, err
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		if a := y.anchors[name]; a != nil {
			return a, nil
		}
		return nil, syntaxErrorf(line, col, "alias *%s has no anchor &%s before it", name, name)
	case *ast.TagNode:
		return nil, syntaxErrorf(line, col, "tag %s; a spec has no tags", quote(n.Start.Value))
	}
	return y.scalar(n, line, col)
}

// object reads a mapping. The keys of a merge key ("<<") give way to its own.
func (y *yamlReader) object(values []*ast.MappingValueNode, line, col, depth int) (*node, error) {
	out := &node{kind: kindObject, line: line, col: col}
	if len(values) > 0 {
		out.line, out.col = position(values[0].Key.GetToken())
	}
	var merged []member
	if len(values) > maxKeys {
		return nil, syntaxErrorf(line, col, "object has more than %d keys", maxKeys)
	}
	for _, v := range values {
		line, col := position(v.Key.GetToken())
		value, err := y.node(v.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if v.Key.IsMergeKey() {
			if value.kind != kindObject {
				return nil, syntaxErrorf(line, col, "<< wants an alias of an object, has %s", value.kind)
			}
			if merged = append(merged, value.members...); len(merged) > maxKeys {
				return nil, syntaxErrorf(line, col, "object has more than %d keys", maxKeys)
			}
			continue
		}
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return nil, syntaxErrorf(line, col, "key %s is no plain text", quote(v.Key.GetToken().Value))
		}
		out.members = append(out.members, member{key.Value, value, line, col})
	}
	for _, m := range merged {
		if out.get(m.key) == nil {
			out.members = append(out.members, m)
		}
	}
	return out, nil
}

func (y *yamlReader) scalar(n ast.Node, line, col int) (*node, error) {
	out := &node{line: line, col: col, text: n.GetToken().Value}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = kindNull
	case *ast.BoolNode:
		out.kind, out.value = kindBool, n.Value
	case *ast.IntegerNode:
		if digits := strings.TrimLeft(out.text, "+-"); len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
			return nil, syntaxErrorf(line, col, "number %s starts with 0; write it without, or 0o%s if it is octal", out.text, strings.TrimLeft(digits, "0"))
		}
		out.kind, out.value = kindNumber, integer(n.Value)
	case *ast.FloatNode:
		out.kind, out.value = kindNumber, n.Value
	case *ast.StringNode:
		out.kind, out.value, out.text = kindString, n.Value, n.Value
	case *ast.LiteralNode:
		out.kind, out.value, out.text = kindString, n.Value.Value, n.Value.Value
	default:
		return nil, syntaxErrorf(line, col, "%s is no value of a spec", quote(out.text))
	}
	if s, ok := out.value.(string); ok && !utf8.ValidString(s) {
		return nil, syntaxErrorf(line, col, "text is not UTF-8")
	}
	if f, ok := out.value.(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) || out.kind == kindNumber && out.value == nil {
		return nil, syntaxErrorf(line, col, "number %s is out of range", quote(out.text))
	}
	return out, nil
}

// integer is an integer of the parser, as int64 where it fits.
func integer(v any) any {
	switch v := v.(type) {
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
		return v
	case int64:
		return v
	}
	return nil
}

func position(t *token.Token) (line, col int) {
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}
