package qemu

import (
	"slices"
	"strings"
	"testing"
)

func TestParseTopology(t *testing.T) {
	for text, want := range map[string]Topology{
		"2n4l4c2t":   {2, 4, 4, 2, 0},
		"1n1l1c1t":   {1, 1, 1, 1, 0},
		"1n15l17c1t": {1, 15, 17, 1, 0},
		"smt-2llc":   {1, 2, 2, 2, 2048},
		"max-cpu":    {1, 14, 9, 2, 4096},
	} {
		if got, err := ParseTopology(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                        "is none; write nodes",
		"4":                       "is none",
		"2n4l4c":                  "is none",
		"2N4l4c2t":                "is none",
		"n4l4c2t":                 "is none",
		"-2n4l4c2t":               "is none",
		"+2n4l4c2t":               "is none",
		"2n4l4c2t ":               "ends in \" \"",
		"2n4l4c2t1n":              "ends in \"1n\"",
		"0n4l4c2t":                "every number is at least 1",
		"2n4l4c0t":                "every number is at least 1",
		"2n3l4c2t":                "3 last-level caches do not divide among 2 nodes",
		"1n16l16c1t":              "more than 255 CPUs",
		"1n256l1c1t":              "more than 255 CPUs",
		"65n65l1c1t":              "at most 64 NUMA nodes",
		"1n9999999999999999l1c1t": "is none",
		"tiny":                    "is none",
	} {
		if got, err := ParseTopology(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %s", text, got, err, want)
		}
	}
}

// Every name stands for a topology that can be built, under KVM at least.
func TestPresets(t *testing.T) {
	names := TopologyNames()
	if len(names) != 24 {
		t.Errorf("%d names", len(names))
	}
	for _, name := range names {
		top, err := ParseTopology(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := top.fits(Accelerator{Kind: KVM}, top.Memory); err != nil || top.Memory < 2048 {
			t.Errorf("%s: %v, %d MiB", name, err, top.Memory)
		}
	}
}

func TestTopologyArgs(t *testing.T) {
	two, err := ParseTopology("2n4l2c2t")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Kernel: "k", MemoryMiB: 513, Topology: two, Accel: Accelerator{Kind: TCG, Thread: Single, CPU: "max"}}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	line := strings.Join(c.Args(), " ")
	for _, want := range []string{
		"-machine q35 ", "-smp 16,sockets=4,cores=2,threads=2 ",
		"-object memory-backend-ram,id=mem0,size=256M -numa node,nodeid=0,cpus=0-7,memdev=mem0 ",
		"-object memory-backend-ram,id=mem1,size=257M -numa node,nodeid=1,cpus=8-15,memdev=mem1 ",
		"-numa dist,src=0,dst=1,val=20 -numa dist,src=1,dst=0,val=20 ",
	} {
		if !strings.Contains(line+" ", want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
	// A back end maps the memory of every node.
	c.Vsock = "fd:3"
	args := c.Args()
	line = strings.Join(args, " ")
	if !strings.Contains(line, "memory-backend-memfd,id=mem0,size=256M,share=on") || !strings.Contains(line, "memory-backend-memfd,id=mem1,size=257M,share=on") ||
		strings.Contains(line, "memory-backend=mem0") || strings.Count(line, "-object") != 2 || !slices.Contains(args, "vhost-user-vsock-pci,chardev=vsock0") {
		t.Errorf("%s", line)
	}
	// One node is the machine's own memory.
	one, err := ParseTopology("smt-2llc")
	if err != nil {
		t.Fatal(err)
	}
	c.Topology = one
	line = strings.Join(c.Args(), " ")
	if strings.Contains(line, "-numa") || !strings.Contains(line, "-machine q35,memory-backend=mem0 ") || !strings.Contains(line, "-smp 8,sockets=2,cores=2,threads=2 ") {
		t.Errorf("%s", line)
	}
}

func TestTopologyFits(t *testing.T) {
	tcg, kvm := Accelerator{Kind: TCG, Thread: Single, CPU: "max"}, Accelerator{Kind: KVM, CPU: "host"}
	for _, tt := range []struct {
		top, want string
		a         Accelerator
		memory    int
	}{
		{"1n14l9c2t", "APIC IDs up to 433", tcg, 4096},
		{"1n14l9c2t", "", kvm, 4096},
		{"1n15l16c1t", "", tcg, 2048}, // up to 239
		{"1n15l17c1t", "APIC IDs up to 464", tcg, 2048},
		{"2n2l1c1t", "less than 64 for each node", tcg, 127},
		{"2n2l1c1t", "", tcg, 128},
	} {
		top, err := ParseTopology(tt.top)
		if err != nil {
			t.Fatal(err)
		}
		err = top.fits(tt.a, tt.memory)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.top, err, tt.want)
		}
	}
	two, err := ParseTopology("1n1l2c1t")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Kernel: "k", Topology: two, CPUs: 3, Accel: tcg}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "cpus: 3, and topology 1n1l2c1t has 2") {
		t.Errorf("%v", err)
	}
}

func FuzzParseTopology(f *testing.F) {
	for _, s := range []string{"2n4l4c2t", "1n1l1c1t", "max-cpu", "0n0l0c0t", "2n4l4c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		top, err := ParseTopology(s)
		if err != nil {
			return
		}
		if top.CPUs() < 1 || top.CPUs() > MaxCPUs || top.LLCs%top.Nodes != 0 {
			t.Fatalf("%q: %+v", s, top)
		}
		back, err := ParseTopology(top.String())
		if back.Memory = top.Memory; err != nil || back != top {
			t.Fatalf("%q: %s reads back as %+v, %v", s, top, back, err)
		}
		c := Config{Kernel: "k", MemoryMiB: MaxMemoryMiB, Topology: top, Accel: Accelerator{Kind: KVM, CPU: "host"}}
		if err := c.Validate(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		c.Args()
	})
}
