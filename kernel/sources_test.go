package kernel

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const deb822Sources = `# made by the image
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main

Types: deb-src
URIs: http://mirror.example/src
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/tools
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
`

const oneLineSources = `# comment
deb	[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian  trixie main # tail
deb-src http://mirror.example/debian trixie main
deb https://vendor.example/x stable main
deb [trusted=yes] file:/srv/debian trixie-updates contrib main
deb https://vendor.example/y trixie stable
debug http://mirror.example/z trixie main
`

const archiveKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

func TestParseDeb822(t *testing.T) {
	got, err := parseDeb822(strings.NewReader(deb822Sources))
	if err != nil {
		t.Fatal(err)
	}
	want := []source{
		{uri: "http://mirror.example/debian", suite: "bookworm", signedBy: archiveKeys},
		{uri: "http://mirror.example/debian", suite: "bookworm-updates", signedBy: archiveKeys},
		{uri: "http://mirror.example/debian-security", suite: "bookworm-security", signedBy: archiveKeys},
		{uri: "https://vendor.example/tools", suite: "bookworm", signedBy: "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	again, err := parseDeb822(strings.NewReader(deb822(want)))
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("rendered and read again: %+v, %v", again, err)
	}
}

func TestParseOneLine(t *testing.T) {
	got, err := parseOneLine(strings.NewReader(oneLineSources))
	if err != nil {
		t.Fatal(err)
	}
	want := []source{
		{uri: "http://mirror.example/debian", suite: "trixie", signedBy: archiveKeys},
		{uri: "https://vendor.example/x", suite: "stable"},
		{uri: "file:/srv/debian", suite: "trixie-updates", trusted: "yes"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if _, err := parseOneLine(strings.NewReader("deb [arch=amd64 http://x y main\n")); err == nil {
		t.Error("open bracket: no error")
	}
}

func TestNewArchive(t *testing.T) {
	deb := func(suite string) source {
		return source{uri: "http://m/debian", suite: suite, signedBy: archiveKeys}
	}
	security := source{uri: "http://m/debian-security", suite: "bookworm-security", signedBy: archiveKeys}
	backports := source{uri: "http://other/debian", suite: "bookworm-backports"}
	vendor := source{uri: "https://vendor.example/debian", suite: "bookworm"}
	for _, tt := range []struct {
		name     string
		sources  []source
		codename string
		want     archive
		err      bool
	}{
		{"bookworm beside a vendor", []source{vendor, deb("bookworm"), deb("bookworm-updates"), security}, "bookworm",
			archive{own: []source{deb("bookworm"), deb("bookworm-updates"), security}, backports: deb("bookworm-backports"), unstable: deb("sid")}, false},
		{"backports of its own", []source{deb("bookworm"), backports}, "bookworm",
			archive{own: []source{deb("bookworm")}, backports: backports, unstable: deb("sid")}, false},
		{"sid without a codename", []source{deb("sid")}, "",
			archive{own: []source{deb("sid")}, backports: deb("sid-backports"), unstable: deb("sid")}, false},
		{"another distribution", []source{{uri: "http://archive.ubuntu.com/ubuntu", suite: "noble"}}, "bookworm", archive{}, true},
		{"no sources", nil, "bookworm", archive{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newArchive(tt.sources, tt.codename)
			if (err != nil) != tt.err {
				t.Fatalf("error %v", err)
			}
			if err == nil && !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestReadSources(t *testing.T) {
	etc := t.TempDir()
	if got, err := readSources(etc); err != nil || got != nil {
		t.Errorf("nothing there: %v, %v", got, err)
	}
	d := filepath.Join(etc, "sources.list.d")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"bad.list": "deb [ x\n", "good.list": oneLineSources, "debian.sources": deb822Sources, "ignored.txt": oneLineSources,
	} {
		if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readSources(etc)
	if err != nil || len(got) != 7 {
		t.Errorf("got %d sources, want 7; error %v", len(got), err)
	}
}
