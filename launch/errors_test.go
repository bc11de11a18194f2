package launch

import (
	"strings"
	"testing"
)

// A command whose image is gone cannot be pasted, and Details says so; a kept
// run has a script.
func TestDetails(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Error
		want []string
		not  string
	}{
		{"no QEMU", Error{}, nil, "QEMU"},
		{"in memory", Error{Command: "qemu -initrd initrd.img"}, []string{"QEMU ran as:\n  qemu -initrd initrd.img\n", "in memory only", "--keep"}, "command.sh"},
		{"kept", Error{Command: "qemu", Dir: "/tmp/a run"}, []string{"by hand: sh '/tmp/a run/command.sh'\n"}, "--keep"},
		{"console", Error{Console: []byte("one\x1b\r\n\r\ntwo")}, []string{"console:\n  one·\n  two\n"}, "\x1b"},
	} {
		d := tt.e.Details()
		for _, want := range tt.want {
			if !strings.Contains(d, want) {
				t.Errorf("%s: %q lacks %q", tt.name, d, want)
			}
		}
		if strings.Contains(d, tt.not) || d != "" && !strings.HasSuffix(d, "\n") {
			t.Errorf("%s: %q", tt.name, d)
		}
	}
}
