package report

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Outputs of an untrusted guest are bounded and made text.
func TestOutputs(t *testing.T) {
	for _, tt := range []struct {
		out  Output
		want error
	}{
		{Output{Head: strings.Repeat("a", MaxOutput/2), Tail: strings.Repeat("b", MaxOutput/2), Bytes: MaxOutput}, nil},
		{Output{Head: strings.Repeat("a", MaxOutput), Tail: "b"}, ErrLimit},
		{Output{Tail: strings.Repeat("a", MaxOutput+1)}, ErrLimit},
	} {
		r := sampleReport()
		r.Workers[1].Stdout, r.Workers[0].Stderr = &tt.out, &Output{Bytes: 3}
		got, err := Decode(bytes.NewReader(encode(t, r)), Limits{})
		if !errors.Is(err, tt.want) {
			t.Fatalf("%d and %d bytes: %v", len(tt.out.Head), len(tt.out.Tail), err)
		}
		if err == nil && (*got.Workers[1].Stdout != tt.out || got.Workers[0].Stderr.Bytes != 3 || got.Workers[0].Stdout != nil) {
			t.Error("the outputs are others")
		}
	}
	d := &decoder{limits: DefaultLimits()}
	w := Worker{Stdout: &Output{Head: "a\xff", Tail: "\xfe"}}
	if err := d.checkOutputs(&w); err != nil || w.Stdout.Head != "a\uFFFD" || w.Stdout.Tail != "\uFFFD" {
		t.Errorf("%+v, %v", w.Stdout, err)
	}
}

// The table shows the last lines of a few outputs, and counts the others.
func TestManyOutputs(t *testing.T) {
	r := sampleReport()
	r.Workers = make([]Worker, maxTails+3)
	for i := range r.Workers {
		var text strings.Builder
		for line := range maxTailLines + 5 {
			fmt.Fprintf(&text, "worker %d says %d\n", i, line)
		}
		r.Workers[i] = Worker{Index: i, WorkType: "exec", Completed: true, Stdout: &Output{Head: text.String(), Bytes: uint64(text.Len())}, Stderr: &Output{}}
	}
	var b bytes.Buffer
	if err := WriteTable(&b, r, 100); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"STDOUT OF worker 0", "worker 0 says 16\n", "3 more outputs are in the JSON report", "the last 12 lines of"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table does not say %q", want)
		}
	}
	for _, not := range []string{"worker 0 says 4\n", "worker 7 says", "STDERR"} {
		if strings.Contains(b.String(), not) {
			t.Errorf("the table says %q:\n%s", not, b.String())
		}
	}
}
