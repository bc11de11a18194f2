package spec

import "fmt"

// kind is the kind of a node.
type kind int

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindObject
)

func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a number", "text", "a list", "an object"}[k]
}

// node is a value of a document, read from YAML or JSON.
type node struct {
	kind      kind
	text      string // of a scalar, as it is written
	value     any    // of a scalar: bool, int64, uint64, float64 or string
	items     []*node
	members   []member
	line, col int
}

// member is one key of an object and its value.
type member struct {
	key       string
	value     *node
	line, col int
}

// get is the value of a key, or nil.
func (n *node) get(key string) *node {
	for i := range n.members {
		if n.members[i].key == key {
			return n.members[i].value
		}
	}
	return nil
}

// Bounds of a document, whatever its form. What is deeper or larger is no spec.
const (
	maxDepth = 64
	maxNodes = 1 << 20
	maxKeys  = 1000 // of one object
)

// syntaxError is an error of the document itself.
type syntaxError struct {
	line, col int
	msg       string
}

func (e *syntaxError) Error() string { return e.msg }

func syntaxErrorf(line, col int, format string, args ...any) error {
	return &syntaxError{line, col, fmt.Sprintf(format, args...)}
}
