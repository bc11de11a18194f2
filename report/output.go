package report

import (
	"fmt"
	"strings"
)

// MaxOutput bounds what is kept of one output of a program, in bytes of UTF-8:
// where bytes are none, each becomes a character of three.
const MaxOutput = 4 << 20

// Output is what a program wrote to one of its outputs: all of it, or, where that
// was more than is kept, how it began and how it ended. Bytes that are no UTF-8
// are replaced by U+FFFD.
type Output struct {
	Head    string `json:"head"`
	Tail    string `json:"tail,omitempty"`          // only with OmittedBytes
	Bytes   uint64 `json:"bytes"`                   // that the program wrote
	Omitted uint64 `json:"omitted_bytes,omitempty"` // between head and tail
}

// checkOutputs bounds the outputs of an untrusted worker.
func (d *decoder) checkOutputs(w *Worker) error {
	for _, o := range []*Output{w.Stdout, w.Stderr} {
		if o == nil {
			continue
		}
		if n := len(o.Head) + len(o.Tail); n > MaxOutput {
			return fmt.Errorf("%w: output of %d bytes, at most %d", ErrLimit, n, MaxOutput)
		}
		o.Head, o.Tail = strings.ToValidUTF8(o.Head, "\uFFFD"), strings.ToValidUTF8(o.Tail, "\uFFFD")
	}
	return nil
}

// Bounds of outputs in the table.
const (
	maxTails     = 6  // programs
	maxTailLines = 12 // of each output, the last ones
)

// outputs writes how the outputs of programs ended.
func (t *table) outputs() {
	shown := 0
	for i := range t.r.Workers {
		w := &t.r.Workers[i]
		for _, o := range []struct {
			name string
			*Output
		}{{"stdout", w.Stdout}, {"stderr", w.Stderr}} {
			if o.Output == nil || o.Bytes == 0 {
				continue
			}
			if shown++; shown > maxTails {
				continue
			}
			t.line("")
			t.line(clip(fmt.Sprintf("%s OF %s", strings.ToUpper(o.name), printable(t.r.WorkerName(w))), t.width))
			t.output(o.Output)
		}
	}
	if shown > maxTails {
		t.line("")
		t.line(fmt.Sprintf("%d more outputs are in the JSON report", shown-maxTails))
	}
}

func (t *table) output(o *Output) {
	text := o.Head
	if o.Omitted > 0 {
		text = o.Tail
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if n := len(lines) - maxTailLines; n > 0 || o.Omitted > 0 {
		lines = lines[max(n, 0):]
		t.line(fmt.Sprintf("  ... the last %s of %d bytes", Plural(len(lines), "line"), o.Bytes))
	}
	for _, l := range lines {
		t.line("  " + clip(printable(strings.ReplaceAll(l, "\t", "        ")), t.width-2))
	}
}
