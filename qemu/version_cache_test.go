package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// With this variable the test program answers --version, and adds a byte to the
// file that the variable names.
const versionEnv = "GUESTINIT_TEST_VERSION_ASKED"

func playVersion(asked string) {
	f, err := os.OpenFile(asked, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString("x")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("QEMU emulator version 8.1.5 (test)")
	os.Exit(0)
}

// What a script starts may change behind it, so it is always asked.
func TestCachedVersionOfScript(t *testing.T) {
	dir, cache := t.TempDir(), filepath.Join(t.TempDir(), "new")
	asked := filepath.Join(dir, "asked")
	script := func(version string) string {
		path := filepath.Join(dir, "qemu")
		text := fmt.Sprintf("#!/bin/sh\necho x >>%s\necho 'QEMU emulator version %s (test)'\n", asked, version)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	count := func() int {
		data, _ := os.ReadFile(asked)
		return len(data) / 2
	}
	for i, version := range []string{"7.2.1", "10.0.2"} {
		v, err := CachedVersion(t.Context(), script(version), cache)
		if err != nil || v.String() != version || count() != i+1 {
			t.Errorf("a script: %v, %v, asked %d times; want %s, asked each time", v, err, count(), version)
		}
	}
}

// A program is asked once, and again when its file is another.
func TestCachedVersionOfProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(versionEnv, filepath.Join(t.TempDir(), "asked"))
	cache, binary := t.TempDir(), filepath.Join(t.TempDir(), "qemu")
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		change func()
		asked  int
	}{
		{func() { check(t, os.WriteFile(binary, program, 0o755)) }, 1},
		{func() {}, 1},
		{func() { check(t, os.Remove(binary)); check(t, os.WriteFile(binary, append(program, 0), 0o755)) }, 2},
		{func() { check(t, os.WriteFile(filepath.Join(cache, versionFile), []byte("{broken"), 0o644)) }, 3},
	} {
		tt.change()
		v, err := CachedVersion(t.Context(), binary, cache)
		data, _ := os.ReadFile(os.Getenv(versionEnv))
		if err != nil || v != (Version{8, 1, 5}) || len(data) != tt.asked {
			t.Errorf("%d: %v, %v; asked %d times, want %d", i, v, err, len(data), tt.asked)
		}
	}
	if _, err := CachedVersion(t.Context(), filepath.Join(cache, "none"), cache); err == nil {
		t.Error("no error for a program that is not there")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
