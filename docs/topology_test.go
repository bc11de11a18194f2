package docs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/qemu"
)

// TestTopologies compares the table of docs/topology.md with the names that the
// program knows.
func TestTopologies(t *testing.T) {
	text := read(t, "docs/topology.md")
	names := qemu.TopologyNames()
	for _, name := range names {
		top, err := qemu.ParseTopology(name)
		if err != nil {
			t.Fatal(err)
		}
		row := fmt.Sprintf("| `%s` | `%s` | %d | %d GiB |\n", name, top, top.CPUs(), top.Memory/1024)
		if !strings.Contains(text, row) {
			t.Errorf("no row %s", row)
		}
	}
	if n := strings.Count(text, "GiB |\n"); n != len(names) {
		t.Errorf("%d rows for %d names", n, len(names))
	}
}
