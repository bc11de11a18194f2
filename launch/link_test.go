package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/report"
)

// kernelWith is a kernel that has the named modules built in.
func kernelWith(t *testing.T, modules ...string) *kernel.Kernel {
	t.Helper()
	dir := t.TempDir()
	list := ""
	for _, m := range modules {
		list += "kernel/" + m + ".ko\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	return &kernel.Kernel{Release: "6.66", Modules: dir}
}

func TestChooseLinks(t *testing.T) {
	with := kernelWith(t, "virtio_pci", "vmw_vsock_virtio_transport")
	without := kernelWith(t, "virtio_pci")
	for _, tt := range []struct {
		name, opt string
		kernel    *kernel.Kernel
		links     string
		note, err string
	}{
		{"auto", "auto", with, "vhost-user-vsock serial", "", ""},
		{"default", "", with, "vhost-user-vsock serial", "", ""},
		{"vsock", "vsock", with, "vhost-user-vsock", "", ""},
		{"serial", "serial", with, "serial", "", ""},
		{"auto without a driver", "auto", without, "serial", "no driver for virtio-vsock", ""},
		{"vsock without a driver", "vsock", without, "", "", "use --link auto"},
		{"serial without a driver for the other", "serial", without, "serial", "", ""},
		{"auto, nobody knows", "auto", &kernel.Kernel{}, "vhost-user-vsock or serial", "", ""},
		{"vsock, nobody knows", "vsock", &kernel.Kernel{}, "vhost-user-vsock", "", ""},
	} {
		links, notes, err := chooseLinks(tt.opt, tt.kernel)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %s", tt.name, err, tt.err)
			}
			continue
		}
		var names []string
		for _, l := range links {
			if l.name() != linkKernel { // where this machine has it
				names = append(names, l.name())
			}
		}
		if got := strings.Join(names, " "); got != tt.links || err != nil {
			t.Errorf("%s: %s, %v, want %s", tt.name, got, err, tt.links)
		}
		if got := strings.Join(notes, " "); !strings.Contains(got, tt.note) || tt.note == "" && got != "" {
			t.Errorf("%s: notes %q, want %q", tt.name, got, tt.note)
		}
	}
}

// A QEMU without our device still runs the guest, over the next link.
func TestFallsBackToSerial(t *testing.T) {
	o := fakeOptions(t, "no-vhost-user")
	k := kernelWith(t, "virtio_pci", "vmw_vsock_virtio_transport", "virtio_console")
	o.Link = "auto"
	r := &runner{o: o, res: &Result{}}
	if err := r.prepare(); err != nil {
		t.Fatal(err)
	}
	plan, err := r.pack(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.image.Close()
	links, _, err := chooseLinks("auto", k)
	if err != nil {
		t.Fatal(err)
	}
	r.links, r.link = links, links[0]
	if err := r.attempts(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	rep := r.res.Report
	if rep.Verdict != report.Pass || rep.Run.Link != "serial" {
		t.Errorf("verdict %s, link %s", rep.Verdict, rep.Run.Link)
	}
	if notes := strings.Join(rep.Notes, "\n"); !strings.Contains(notes, "the host link is not vhost-user-vsock: QEMU does not take its device: qemu: -device vhost-user-vsock-pci") {
		t.Errorf("notes %q", notes)
	}
}

// The guest of a kernel of which nobody knows the drivers speaks on the port,
// though the device waits too.
func TestGuestChoosesLink(t *testing.T) {
	o := fakeOptions(t, "pass")
	o.Link = "auto" // the fake's kernel has no modules
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Report.Run.Link != "serial" || !strings.Contains(res.Command, "vhost-user-vsock-pci") || !strings.Contains(res.Command, "guestinit.link=auto") {
		t.Errorf("link %s, %s", res.Report.Run.Link, res.Command)
	}
}
