package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/launch"
)

// Every line of what is wrong with a spec names the spec and the field.
func TestSpecErrors(t *testing.T) {
	const text = `
version: 1
duration: 1s
groups:
  - {workers: 1, work: spin_wiat}
  - {workers: 1, work: {type: bursty, slep_duration: 1s, burst: 1}}
`
	_, err := readSpec([]string{"-"}, strings.NewReader(text))
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) < 2 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	for i, l := range lines {
		if want := fmt.Sprintf("stdin: groups[%d].work.", min(i, 1)); !strings.HasPrefix(l, want) {
			t.Errorf("%q does not begin with %q", l, want)
		}
	}
}

// An error of a run is shown with its details, wrapped or not.
func TestPrintError(t *testing.T) {
	run := &launch.Error{Class: launch.Crash, Msg: "panic", Console: []byte("oops\n"), Command: "qemu -m 1", Dir: "/tmp/run"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("plain"), "guestinit: plain\n"},
		{run, "guestinit: " + run.Error() + "\n" + run.Details()},
		{fmt.Errorf("again: %w", run), "guestinit: again: " + run.Error() + "\n" + run.Details()},
	} {
		var b bytes.Buffer
		printError(&b, tt.err)
		if b.String() != tt.want {
			t.Errorf("got %q, want %q", b.String(), tt.want)
		}
	}
}
