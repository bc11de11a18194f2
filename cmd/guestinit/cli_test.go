package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/guestinit/guestinit/launch"
)

// Wrong usage is refused before anything is done, by what is wrong with it.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	missing, image := filepath.Join(dir, "no", "file"), filepath.Join(dir, "image")
	usage, setup := int(launch.Usage), int(launch.Setup)
	for _, tt := range []struct {
		args   string
		status int
		out    string // in standard output
		err    string // in standard error
	}{
		{"", usage, "Usage: guestinit COMMAND", ""},
		{"frob", usage, "", `unknown command "frob"; see`},
		{"locla", usage, "", `did you mean "local"?`},
		{"kernel", usage, "", "kernel fetch "},
		{"kernel --help", 0, "kernel list ", ""},
		{"spec frob", usage, "", `unknown command "spec frob"`},
		{"spec --help", 0, "spec validate ", ""},
		{"version 1", usage, "", `version: takes no arguments, got ["1"]`},
		{"run --frob", usage, "", "not defined: -frob; see `guestinit run --help`"},
		{"run a b", usage, "", `2 specs given, want one at most: ["a" "b"]`},
		{"run --cpus 0", usage, "", `"0" for flag -cpus: no number from 1 to 255`},
		{"run --cpus 256", usage, "", "no number from 1 to 255"},
		{"run --memory 1", usage, "", `"1" for flag -memory: outside 64M to 1024G`},
		{"run --memory 1X", usage, "", "no size"},
		{"run --memory 9999999999G", usage, "", "outside 64M to 1024G"},
		{"run --timeout 0", usage, "", "no duration above 0"},
		{"run --timeout -1s", usage, "", "no duration above 0"},
		{"run --topology 2n3l1c1t", usage, "", "for flag -topology: "},
		{"run --accel xen", usage, "", `accel: "xen" is not auto`},
		{"run --link tcp", usage, "", `link: "tcp" is not auto`},
		{"run --json - --events -", usage, "", "both want standard output"},
		{"run --json " + missing, setup, "", "open --json: open " + missing},
		{"run --events " + missing, setup, "", "open --events: open " + missing},
		{"local --json " + missing, setup, "", "open --json: open " + missing},
		{"kernel fetch latest", usage, "", `fetch kernel "latest": no version`},
		{"pack", usage, "", "want -o FILE"},
		{"pack --compression xz -o " + image, usage, "", `--compression "xz" is not known; use none, gzip, lz4, zstd`},
		{"pack --file " + missing + " -o " + image, setup, "", missing},
		{"pack -o " + missing, setup, "", "open -o: open " + missing},
	} {
		var out, err bytes.Buffer
		status := run(strings.Fields(tt.args), streams{in: strings.NewReader(""), out: &out, err: &err})
		if status != tt.status || !strings.Contains(out.String(), tt.out) || !strings.Contains(err.String(), tt.err) {
			t.Errorf("guestinit %s: status %d, want %d with %q and %q\nout: %s\nerr: %s", tt.args, status, tt.status, tt.out, tt.err, &out, &err)
		}
	}
	if _, err := os.Stat(image); err == nil {
		t.Errorf("%s is left of an image that could not be built", image)
	}
}

// A report has its file before the run it is of, and replaces what was there.
func TestJSONFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(name, bytes.Repeat([]byte("old "), 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := "{version: 1, duration: 10ms, groups: [{workers: 1, work: spin_wait}]}"
	var out, err bytes.Buffer
	if status := run([]string{"local", "--json", name, "-"}, streams{in: strings.NewReader(spec), out: &out, err: &err}); status != 0 {
		t.Fatalf("status %d: %s", status, &err)
	}
	data, rerr := os.ReadFile(name)
	if rerr != nil || !bytes.HasPrefix(data, []byte("{")) || bytes.Contains(data, []byte("old")) {
		t.Errorf("%.100s, %v", data, rerr)
	}
}

// full is a standard output that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// Data that nobody gets is no success.
func TestFullOutput(t *testing.T) {
	const spec = "{version: 1, duration: 10ms, groups: [{workers: 1, work: spin_wait}]}"
	for _, args := range []string{
		"version", "types", "types --json", "help", "run --help", "kernel --help", "spec schema", "spec validate -",
		"local -", "local --json - -", "local --events - -", "local --events /dev/full -", "local --json /dev/full -",
	} {
		var stdout io.Writer = full{}
		if strings.Contains(args, "/dev/full") {
			stdout = io.Discard
		}
		var err bytes.Buffer
		status := run(strings.Fields(args), streams{in: strings.NewReader(spec), out: stdout, err: &err})
		if status != int(launch.Setup) || !strings.Contains(err.String(), "no space left on device") {
			t.Errorf("guestinit %s: status %d, %s", args, status, &err)
		}
	}
}
