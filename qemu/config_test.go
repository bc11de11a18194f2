package qemu

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// option returns the values of every occurrence of flag.
func option(args []string, flag string) (values []string) {
	for i := 0; i+1 < len(args); i++ {
		if args[i] == flag {
			values = append(values, args[i+1])
		}
	}
	return values
}

func TestArgs(t *testing.T) {
	tcg := Accelerator{TCG, Single, oldTCG}
	base := Config{Kernel: "/k", Accel: tcg}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		flag   string
		want   []string
	}{
		{"accelerator", func(*Config) {}, "-accel", []string{"tcg,thread=single"}},
		{"cpu", func(*Config) {}, "-cpu", []string{oldTCG}},
		{"kvm", func(c *Config) { c.Accel = Accelerator{KVM, "", "host"} }, "-accel", []string{"kvm"}},
		{"default memory", func(*Config) {}, "-m", []string{"512M"}},
		{"memory", func(c *Config) { c.MemoryMiB = 4096 }, "-m", []string{"4096M"}},
		{"default cpus", func(*Config) {}, "-smp", []string{"2"}},
		{"no initrd", func(*Config) {}, "-initrd", nil},
		{"initrd", func(c *Config) { c.Initrd = "/i" }, "-initrd", []string{"/i"}},
		{"append is one argument", func(c *Config) { c.Append = `a "b c"` }, "-append", []string{`a "b c"`}},
		{"no link, no chardev", func(*Config) {}, "-chardev", nil},
		{"link by path", func(c *Config) { c.Link = "/t/l,k" }, "-chardev", []string{"socket,id=link0,path=/t/l,,k,server=on,wait=off"}},
		{"link by descriptor", func(c *Config) { c.Link = "fd:3" }, "-chardev", []string{"socket,id=link0,fd=3"}},
		{"port", func(c *Config) { c.Link = "fd:3" }, "-device", []string{"virtio-serial-pci", "virtserialport,chardev=link0,name=guestinit.0"}},
		{"device of a back end", func(c *Config) { c.Vsock = "/t/v,s" }, "-device", []string{"vhost-user-vsock-pci,chardev=vsock0"}},
		{"back end by path", func(c *Config) { c.Vsock = "/t/v,s" }, "-chardev", []string{"socket,id=vsock0,path=/t/v,,s"}},
		{"back end by descriptor", func(c *Config) { c.Vsock = "fd:5" }, "-chardev", []string{"socket,id=vsock0,fd=5"}},
		{"shared memory", func(c *Config) { c.Vsock, c.MemoryMiB = "fd:5", 777 }, "-object", []string{"memory-backend-memfd,id=mem0,size=777M,share=on"}},
		{"its use", func(c *Config) { c.Vsock = "fd:5" }, "-machine", []string{"q35,memory-backend=mem0"}},
		{"device of the kernel", func(c *Config) { c.VsockCID = 70000 }, "-device", []string{"vhost-vsock-pci,guest-cid=70000"}},
		{"and its file", func(c *Config) { c.VsockCID, c.VsockFD = 70000, "fd:6" }, "-device", []string{"vhost-vsock-pci,guest-cid=70000,vhostfd=6"}},
		{"private memory", func(c *Config) { c.VsockCID = 70000 }, "-machine", []string{"q35"}},
		{"monitor", func(c *Config) { c.QMP = "fd:4" }, "-mon", []string{"chardev=qmp0,mode=control"}},
	} {
		c := base
		tt.change(&c)
		if got := option(c.Args(), tt.flag); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %s %q, want %q", tt.name, tt.flag, got, tt.want)
		}
	}
	for _, flag := range []string{"-nodefaults", "-no-user-config", "-no-reboot"} {
		if !slices.Contains(base.Args(), flag) {
			t.Errorf("no %s in %q", flag, base.Args())
		}
	}
	extra := base
	extra.Extra = []string{"-s", "-S"}
	if args := extra.Args(); !slices.Equal(args[len(args)-2:], extra.Extra) {
		t.Errorf("extra arguments are not last: %q", args)
	}
}

func TestValidate(t *testing.T) {
	good := Config{Kernel: "/k", Accel: Accelerator{TCG, Single, "max"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		field  string
		change func(*Config)
	}{
		{"kernel: missing", func(c *Config) { c.Kernel = "" }},
		{"memory", func(c *Config) { c.MemoryMiB = 1 }},
		{"memory", func(c *Config) { c.MemoryMiB = -512 }},
		{"cpus", func(c *Config) { c.CPUs = 256 }},
		{"cpus", func(c *Config) { c.CPUs = -1 }},
		{"command line", func(c *Config) { c.Append = strings.Repeat("x", CommandLineMax+1) }},
		{"command line", func(c *Config) { c.Append = "a\nb" }},
		{"accelerator", func(c *Config) { c.Accel = Accelerator{} }},
		{"accelerator", func(c *Config) { c.Accel.Thread = "" }},
		{"socket", func(c *Config) { c.Vsock = "/" + strings.Repeat("x", socketPathMax) }},
		{"one device", func(c *Config) { c.Vsock, c.VsockCID = "v", 3 }},
		{"socket", func(c *Config) { c.Link = "/" + strings.Repeat("x", socketPathMax) }},
	} {
		c := good
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%s: got %v", tt.field, err)
		}
	}
}

// Quote is right if a shell reads back what went in.
func TestQuote(t *testing.T) {
	for _, word := range []string{"", "plain", "a b", "it's", `"$HOME"`, "`x`", "a\\b", "*", "~", "a;b", "#x", "tab\there", "ünïcode", "a=b", "-x", "new\nline"} {
		out, err := exec.Command("sh", "-c", "printf %s "+Quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q quoted as %s: a shell reads %q, %v", word, Quote(word), out, err)
		}
	}
	if got := Quote("path=/a/b,server=on"); got != "path=/a/b,server=on" {
		t.Errorf("quoted without need: %s", got)
	}
}
