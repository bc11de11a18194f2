package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNewAccelerator(t *testing.T) {
	for _, tt := range []struct {
		kind, thread string
		major        int
		want, cpu    string // want "" for an error
	}{
		{KVM, "", 7, "kvm", "host"},
		{KVM, "", 10, "kvm", "host"},
		{TCG, "", 7, "tcg,thread=single", "max,-cx16,-erms,-fsrm"},
		{TCG, "", 9, "tcg,thread=single", "max,-cx16,-erms,-fsrm"},
		{TCG, "", 10, "tcg,thread=multi", "max"},
		{TCG, "", 11, "tcg,thread=multi", "max"},
		{TCG, Multi, 7, "tcg,thread=multi", "max,-cx16,-erms,-fsrm"},
		{TCG, Single, 10, "tcg,thread=single", "max"},
		{KVM, Multi, 10, "", ""},
		{TCG, "many", 10, "", ""},
		{"xen", "", 10, "", ""},
		{"", "", 10, "", ""},
	} {
		a, err := NewAccelerator(tt.kind, tt.thread, Version{Major: tt.major})
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s/%s on %d: got %v, want an error", tt.kind, tt.thread, tt.major, a)
			}
			continue
		}
		if err != nil || a.String() != tt.want || a.CPU != tt.cpu {
			t.Errorf("%s/%s on %d: got %q -cpu %q, %v; want %q -cpu %q", tt.kind, tt.thread, tt.major, a, a.CPU, err, tt.want, tt.cpu)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Version
	}{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", Version{7, 2, 22}},
		{"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\n", Version{10, 0, 2}},
		{"QEMU emulator version 9.1\n", Version{9, 1, 0}},
		{"QEMU emulator version 11.0.0-rc1\n", Version{11, 0, 0}},
	} {
		got, err := ParseVersion(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%q: got %v, %v; want %v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"", "version", "version x.y", "version 9", "bash 5.2\n"} {
		if v, err := ParseVersion(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, v)
		}
	}
}

// fakeHost is a prober over files of its own, with a vCPU that takes as long
// as it is told.
func fakeHost(t *testing.T, modules ...string) (Prober, *int) {
	t.Helper()
	dir := t.TempDir()
	for _, m := range modules {
		if err := os.MkdirAll(filepath.Join(dir, "module", m), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"kvm": "", "boot_id": "one\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runs := new(int)
	return Prober{
		Device:    filepath.Join(dir, "kvm"),
		SysModule: filepath.Join(dir, "module"),
		BootID:    filepath.Join(dir, "boot_id"),
		CacheDir:  filepath.Join(dir, "cache"),
		run: func(context.Context, string) (time.Duration, error) {
			*runs++
			return 20 * time.Microsecond, nil
		},
	}, runs
}

func TestProbe(t *testing.T) {
	took := func(d time.Duration, err error) func(context.Context, string) (time.Duration, error) {
		return func(context.Context, string) (time.Duration, error) { return d, err }
	}
	for _, tt := range []struct {
		name    string
		modules []string
		run     func(context.Context, string) (time.Duration, error)
		usable  bool
		reason  string
	}{
		{"hardware", []string{"kvm", "kvm_intel"}, nil, true, "10000 rounds"},
		{"amd", []string{"kvm", "kvm_amd"}, nil, true, "10000 rounds"},
		{"para-virtual", []string{"kvm", "kvm_pvm"}, nil, false, "only kvm_pvm"},
		{"bare", nil, nil, false, "no kvm_* module"},
		{"crawls", []string{"kvm_amd"}, took(7800*time.Microsecond, nil), false, "7.8ms"},
		{"stops", []string{"kvm_amd"}, took(0, errors.New("exit reason 17")), false, "exit reason 17"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := fakeHost(t, tt.modules...)
			if tt.run != nil {
				p.run = tt.run
			}
			got := p.Probe(t.Context())
			if got.Usable != tt.usable || !strings.Contains(got.Reason, tt.reason) || strings.Contains(got.Reason, "\n") {
				t.Errorf("got usable=%v, %q; want %v and one line with %q", got.Usable, got.Reason, tt.usable, tt.reason)
			}
		})
	}
	t.Run("no device", func(t *testing.T) {
		p, _ := fakeHost(t, "kvm_intel")
		p.Device += ".absent"
		if got := p.Probe(t.Context()); got.Usable || !strings.Contains(got.Reason, p.Device) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestProbeIsRememberedUntilTheNextBoot(t *testing.T) {
	p, runs := fakeHost(t, "kvm_intel")
	first, second := p.Probe(t.Context()), p.Probe(t.Context())
	if *runs != 1 || first.Cached || !second.Cached || second.Reason != first.Reason {
		t.Fatalf("%d runs; first %+v, second %+v", *runs, first, second)
	}
	if err := p.Distrust("guest printed nothing for 5s"); err != nil {
		t.Fatal(err)
	}
	if got := p.Probe(t.Context()); got.Usable || !strings.Contains(got.Reason, "printed nothing") {
		t.Fatalf("after Distrust: %+v", got)
	}
	if err := os.WriteFile(p.BootID, []byte("two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.Probe(t.Context()); !got.Usable || got.Cached || *runs != 2 {
		t.Fatalf("after a reboot: %+v, %d runs", got, *runs)
	}
	if err := os.WriteFile(filepath.Join(p.CacheDir, probeFile), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.Probe(t.Context()); got.Cached || *runs != 3 {
		t.Fatalf("with a torn cache: %+v, %d runs", got, *runs)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	os.Remove(filepath.Join(p.CacheDir, probeFile))
	p.Probe(cancelled)
	if _, err := os.Stat(filepath.Join(p.CacheDir, probeFile)); err == nil {
		t.Error("the answer of a cancelled probe was remembered")
	}
}

// The verdict on this machine depends on the machine; that the probe ends in
// time and gives a reason does not, and neither does what its vCPU must do.
func TestProbeHere(t *testing.T) {
	start := time.Now()
	got := Prober{CacheDir: t.TempDir()}.Probe(t.Context())
	t.Logf("in %v: %+v", time.Since(start), got)
	if got.Reason == "" || strings.Contains(got.Reason, "\n") {
		t.Errorf("reason %q is not one line", got.Reason)
	}
}
