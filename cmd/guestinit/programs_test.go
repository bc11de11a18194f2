package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/spec"
)

func execSpec(programs ...string) *spec.Spec {
	s := &spec.Spec{Groups: []spec.Group{{Workers: 1, Work: spec.Work{Type: "spin_wait"}}}}
	for _, p := range programs {
		s.Groups = append(s.Groups, spec.Group{Workers: 1, Work: spec.Work{Type: "exec", Params: map[string]any{"argv": []any{p, "x"}}}})
	}
	return s
}

// The programs of a spec go into the image, with interpreters, once, and not
// where --file brings them.
func TestWithPrograms(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tool, plain := file("tool", "binary"), file("plain", "text")
	if err := os.Chmod(plain, 0o644); err != nil {
		t.Fatal(err)
	}
	script, deep := file("script", "#!"+tool+" -x\necho\n"), file("deep", "#! /usr/bin/env script\n")
	circle := file("circle", "#!"+filepath.Join(dir, "circle2")+"\n")
	file("circle2", "#!"+filepath.Join(dir, "circle3")+"\n")
	orphan := file("orphan", "#!/nowhere/sh\n")
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	for _, tt := range []struct {
		name     string
		programs []string
		files    []initramfs.File
		want     []string // Dst, or what the error says
	}{
		{"by path", []string{tool, tool}, nil, []string{tool}},
		{"by name", []string{"tool"}, nil, []string{"/usr/local/bin/tool"}},
		{"a script", []string{script}, nil, []string{script, tool}},
		{"env", []string{deep}, nil, []string{deep, "/usr/bin/env", "/usr/local/bin/script", tool}},
		{"given", []string{"/opt/other", "other2"}, []initramfs.File{{Src: tool, Dst: "/opt/other"}, {Src: tool, Dst: "usr/bin/other2"}}, []string{"/opt/other", "usr/bin/other2"}},
		{"given in place", []string{tool}, []initramfs.File{{Src: tool}}, []string{""}},
		{"in a directory", []string{"/data/tool"}, []initramfs.File{{Src: dir, Dst: "/data"}}, []string{"/data"}},
		{"not in the directory", []string{"/data/nothing"}, []initramfs.File{{Src: dir, Dst: "/data"}}, []string{"error: groups[1].work.argv[0]: this machine has no program /data/nothing"}},
		{"itself", []string{"/bbin/guestinit", "/init"}, nil, nil},
		{"no such name", []string{"tool", "nothing"}, nil, []string{`error: groups[2].work.argv[0]: there is no program "nothing"`}},
		{"not executable", []string{plain}, nil, []string{"error: groups[1].work.argv[0]: this machine has no program " + plain}},
		{"no interpreter", []string{orphan}, nil, []string{"error: groups[1].work.argv[0]: interpreter of " + orphan + ": this machine has no program /nowhere/sh"}},
		{"interpreters", []string{circle}, nil, []string{"error: groups[1].work.argv[0]: interpreter of " + circle}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := withPrograms(execSpec(tt.programs...), tt.files)
			if err != nil {
				if len(tt.want) != 1 || !strings.HasPrefix("error: "+err.Error(), tt.want[0]) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			var dst []string
			for _, f := range got {
				dst = append(dst, f.Dst)
			}
			if !slices.Equal(dst, tt.want) {
				t.Errorf("got %q, want %q", dst, tt.want)
			}
		})
	}
}

// The scheduler of a spec goes into the image as well.
func TestWithScheduler(t *testing.T) {
	program := filepath.Join(t.TempDir(), "scx")
	s := execSpec()
	s.Scheduler = &spec.Scheduler{Path: program}
	want := "scheduler.path: this machine has no program " + program
	if _, err := withPrograms(s, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := os.WriteFile(program, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := withPrograms(s, nil); err != nil || len(got) != 1 || got[0].Dst != program {
		t.Errorf("got %v, %v", got, err)
	}
}
