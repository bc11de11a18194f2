package qemu

import (
	"fmt"
	"math/bits"
	"strings"
)

// Topology is how a guest's CPUs share caches and memory. Each last-level cache
// is a socket of its own: that is what the kernel sees with every QEMU and CPU
// model. The zero value leaves it to QEMU.
type Topology struct {
	Nodes   int // NUMA nodes
	LLCs    int // last-level caches of the whole guest, a multiple of Nodes
	Cores   int // of each cache
	Threads int // of each core
	Memory  int // MiB that it wants where the user names none; 0 for no wish
}

// Distances between NUMA nodes, as the kernel shows them.
const (
	LocalDistance  = 10
	RemoteDistance = 20
)

const (
	maxNodes     = 64
	minNodeMiB   = 64
	presetMemory = 2048
	largeMemory  = 4096
	maxXAPIC     = 254 // highest APIC ID without x2APIC
)

// preset is a topology with a name.
type preset struct {
	name, topology string
	memory         int
}

func presets() []preset {
	return []preset{
		{"tiny-1llc", "1n1l4c1t", presetMemory}, {"tiny-2llc", "1n2l2c1t", presetMemory},
		{"odd-3llc", "1n3l3c1t", presetMemory}, {"odd-5llc", "1n5l3c1t", presetMemory}, {"odd-7llc", "1n7l2c1t", presetMemory},
		{"smt-2llc", "1n2l2c2t", presetMemory}, {"smt-3llc", "1n3l2c2t", presetMemory},
		{"medium-4llc", "1n4l4c2t", presetMemory}, {"medium-8llc", "1n8l4c2t", presetMemory},
		{"large-4llc", "1n4l16c2t", presetMemory}, {"large-8llc", "1n8l8c2t", presetMemory},
		{"near-max-llc", "1n15l8c2t", presetMemory}, {"max-cpu", "1n14l9c2t", largeMemory},
		{"medium-4llc-nosmt", "1n4l8c1t", presetMemory}, {"medium-8llc-nosmt", "1n8l8c1t", presetMemory},
		{"large-4llc-nosmt", "1n4l32c1t", presetMemory}, {"large-8llc-nosmt", "1n8l16c1t", presetMemory},
		{"near-max-llc-nosmt", "1n15l16c1t", presetMemory}, {"max-cpu-nosmt", "1n14l18c1t", largeMemory},
		{"numa2-4llc", "2n4l4c1t", presetMemory}, {"numa2-8llc", "2n8l8c2t", presetMemory},
		{"numa2-8llc-nosmt", "2n8l16c1t", presetMemory}, {"numa4-8llc", "4n8l4c1t", presetMemory},
		{"numa4-12llc", "4n12l8c2t", largeMemory},
	}
}

// TopologyNames are the names that ParseTopology knows.
func TopologyNames() []string {
	var names []string
	for _, p := range presets() {
		names = append(names, p.name)
	}
	return names
}

// ParseTopology reads "2n4l4c2t": NUMA nodes, last-level caches of the whole
// guest, cores of each cache, threads of each core; or a name.
func ParseTopology(s string) (Topology, error) {
	for _, p := range presets() {
		if p.name == s {
			t, err := ParseTopology(p.topology)
			t.Memory = p.memory
			return t, err
		}
	}
	var t Topology
	rest := s
	for _, f := range []struct {
		unit string
		to   *int
	}{{"n", &t.Nodes}, {"l", &t.LLCs}, {"c", &t.Cores}, {"t", &t.Threads}} {
		digits, after, ok := strings.Cut(rest, f.unit)
		n := 0
		for _, d := range []byte(digits) {
			if d < '0' || d > '9' || n > MaxCPUs {
				ok = false
				break
			}
			n = 10*n + int(d-'0')
		}
		if !ok || digits == "" {
			return Topology{}, fmt.Errorf("topology: %q is none; write nodes, last-level caches, cores of each cache and threads of each core, such as 2n4l4c2t, or a name such as %s", clip(s, 40), presets()[0].name)
		}
		*f.to, rest = n, after
	}
	if rest != "" {
		return Topology{}, fmt.Errorf("topology: %q ends in %q; the form is 2n4l4c2t", clip(s, 40), clip(rest, 40))
	}
	return t, t.validate()
}

func (t Topology) validate() error {
	switch {
	case t.Nodes < 1 || t.LLCs < 1 || t.Cores < 1 || t.Threads < 1:
		return fmt.Errorf("topology: %s: every number is at least 1", t)
	case t.Nodes > maxNodes:
		return fmt.Errorf("topology: %s: at most %d NUMA nodes", t, maxNodes)
	case t.LLCs%t.Nodes != 0:
		return fmt.Errorf("topology: %s: %d last-level caches do not divide among %d nodes", t, t.LLCs, t.Nodes)
	case t.LLCs > MaxCPUs || t.Cores > MaxCPUs || t.Threads > MaxCPUs || t.CPUs() > MaxCPUs:
		return fmt.Errorf("topology: %s: more than %d CPUs", t, MaxCPUs)
	}
	return nil
}

// String is the form that ParseTopology reads.
func (t Topology) String() string {
	return fmt.Sprintf("%dn%dl%dc%dt", t.Nodes, t.LLCs, t.Cores, t.Threads)
}

// IsZero reports whether t leaves the topology to QEMU.
func (t Topology) IsZero() bool { return t.Nodes == 0 }

// CPUs is the number of CPUs.
func (t Topology) CPUs() int { return t.LLCs * t.Cores * t.Threads }

// maxAPICID is the highest APIC ID: each level takes whole bits of it.
func (t Topology) maxAPICID() int {
	threadBits := bits.Len(uint(t.Threads - 1))
	coreBits := bits.Len(uint(t.Cores - 1))
	return (t.LLCs-1)<<(threadBits+coreBits) | (t.Cores-1)<<threadBits | (t.Threads - 1)
}

// fits checks what this machine can make of t.
func (t Topology) fits(a Accelerator, memoryMiB int) error {
	if t.IsZero() {
		return nil
	}
	if err := t.validate(); err != nil {
		return err
	}
	if id := t.maxAPICID(); a.Kind == TCG && id > maxXAPIC {
		return fmt.Errorf("topology: %s: its CPUs have APIC IDs up to %d, and without KVM they end at %d; take fewer caches, or a power of two of cores", t, id, maxXAPIC)
	}
	if memoryMiB/t.Nodes < minNodeMiB {
		return fmt.Errorf("topology: %s: %d MiB are less than %d for each node; give more with --memory", t, memoryMiB, minNodeMiB)
	}
	return nil
}

// smp is QEMU's argument of -smp.
func (t Topology) smp() string {
	return fmt.Sprintf("%d,sockets=%d,cores=%d,threads=%d", t.CPUs(), t.LLCs, t.Cores, t.Threads)
}

// numaArgs are the nodes, with memory each: in files where another process maps
// it.
func (t Topology) numaArgs(memoryMiB int, shared bool) []string {
	backend := "memory-backend-ram,id=mem%d,size=%dM"
	if shared {
		backend = "memory-backend-memfd,id=mem%d,size=%dM,share=on"
	}
	var args []string
	perNode := t.CPUs() / t.Nodes
	for node := range t.Nodes {
		size := memoryMiB / t.Nodes
		if node == t.Nodes-1 {
			size = memoryMiB - node*size
		}
		cpus := fmt.Sprintf("%d-%d", node*perNode, (node+1)*perNode-1)
		args = append(args, "-object", fmt.Sprintf(backend, node, size),
			"-numa", fmt.Sprintf("node,nodeid=%d,cpus=%s,memdev=mem%d", node, cpus, node))
	}
	for from := range t.Nodes {
		for to := range t.Nodes {
			if from != to {
				args = append(args, "-numa", fmt.Sprintf("dist,src=%d,dst=%d,val=%d", from, to, RemoteDistance))
			}
		}
	}
	return args
}
