package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
	want := []string{
		`stdin:5:24: groups[0].work.type: unknown work type "spin_wiat", did you mean "spin_wait"?; ` + "`guestinit types` lists them",
		`stdin:6:54: groups[1].work.slep_duration: unknown parameter of bursty, did you mean "sleep_duration"?; it takes burst_duration, sleep_duration`,
		`stdin:6:65: groups[1].work.burst: unknown parameter of bursty; it takes burst_duration, sleep_duration`,
	}
	if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
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
