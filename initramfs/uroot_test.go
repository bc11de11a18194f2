package initramfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/uimage"
	uimg "github.com/u-root/mkuimage/uimage/initramfs"
	"github.com/u-root/uio/llog"
)

// buildURoot builds an image as
//
//	u-root -files INIT:bbin/guestinit -initcmd=/bbin/guestinit -o OUT
//
// does, with u-root's own builder.
func buildURoot(t *testing.T, init string, extra ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "uroot.cpio")
	err := uimage.Create(llog.Test(t),
		uimage.WithReplaceEnv(golang.Default(golang.DisableCGO())),
		uimage.WithTempDir(t.TempDir()),
		uimage.WithBaseArchive(uimage.DefaultRamfs()),
		uimage.WithFiles(append([]string{init + ":bbin/guestinit"}, extra...)...),
		uimage.WithInit("/bbin/guestinit"),
		uimage.WithOutput(&uimg.CPIOFile{Path: out}),
	)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestURootImage checks that what guestinit looks for in its own images and
// in u-root's lies in the same places.
func TestURootImage(t *testing.T) {
	o := someOptions(t)
	own, _ := mustBuild(t, o)
	_, ours := readArchive(t, own)
	spec := writeFile(t, filepath.Join(t.TempDir(), "spec.json"), o.Spec, 0o644)
	_, theirs := readArchive(t, buildURoot(t, o.Init, spec+":"+SpecPath[1:]))

	// Here /init is the file and the other the link, there the reverse.
	link, ok := theirs["init"]
	if !ok || link.mode&0o170000 != 0o120000 || strings.TrimPrefix(link.text, "/") != LinkPath[1:] {
		t.Errorf("/init of u-root's image is %+v, want a link to %s", link, LinkPath)
	}
	if got, want := theirs["bbin/guestinit"].text, ours["init"].text; got != want || got == "" {
		t.Errorf("/bbin/guestinit has %d bytes, want the %d of /init", len(got), len(want))
	}
	if got, want := theirs[SpecPath[1:]], ours[SpecPath[1:]]; got != want {
		t.Errorf("spec: %+v in u-root's image, %+v in ours", got, want)
	}
	if _, ok := theirs["dev/console"]; !ok {
		t.Error("u-root's image has no console")
	}
	// The guest takes an image with the list but without the end as cut.
	if _, ok := theirs[ModulesPath[1:]]; ok {
		t.Error("u-root's image has a module list")
	}
}
