package qemu

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// DefaultBinary is looked up in $PATH where Config names no binary.
const DefaultBinary = "qemu-system-x86_64"

// PortName is the name of the virtio-serial port that carries the host link;
// the guest finds it in /sys/class/virtio-ports/*/name.
const PortName = "guestinit.0"

// CommandLineMax is the longest kernel command line, in bytes, that an x86
// kernel keeps (COMMAND_LINE_SIZE of arch/x86/include/asm/setup.h, less the
// final NUL). A longer one is cut off in silence.
const CommandLineMax = 2047

// BaseAppend is what the kernel command line of a guest begins with: the console, a
// reboot at once after a panic (which ends QEMU), no self-tests of the crypto code
// (0.3 s of boot), the TSC kept as clock source, and no check that the timer ticks
// in time. A kernel that knows its hypervisor leaves that check out by itself;
// under emulation on a busy host it fails, and the boot with it.
const BaseAppend = "console=ttyS0 quiet panic=-1 cryptomgr.notests=1 tsc=reliable no_timer_check"

// What a guest may have: memory in MiB, and CPUs.
const (
	MinMemoryMiB = 64
	MaxMemoryMiB = 1 << 20
	MaxCPUs      = 255
)

const (
	socketPathMax = 107 // sockaddr_un, less the final NUL
)

// Config is one guest's machine. The zero value of a field with a default
// means the default.
type Config struct {
	Binary    string      // QEMU; default DefaultBinary
	Kernel    string      // vmlinux with a PVH note, or bzImage
	Initrd    string      // initramfs; "" for none
	Append    string      // kernel command line, at most CommandLineMax bytes
	MemoryMiB int         // 64 to 1,048,576; default 512
	CPUs      int         // 1 to 255; default 2, or those of Topology
	Topology  Topology    // how the CPUs share caches and memory; zero for one node, the rest as QEMU has it
	Accel     Accelerator // from Choose; Kind must be set
	Link      string      // chardev of the host link: a Unix socket path that QEMU listens on, "fd:N", or "" for none
	QMP       string      // chardev of the QMP monitor, likewise
	Vsock     string      // back end of a vhost-user-vsock device: a Unix socket path that QEMU connects to, "fd:N", or "" for none
	VsockCID  uint32      // CID of a vhost-vsock device of the host's kernel, 3 and up; 0 for none
	VsockFD   string      // "fd:N" of /dev/vhost-vsock for that device; "" has QEMU open it
	Extra     []string    // further arguments, last
}

// WithDefaults returns c with the defaults filled in.
func (c Config) WithDefaults() Config {
	if c.Binary == "" {
		c.Binary = DefaultBinary
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 512
	}
	if c.CPUs == 0 {
		c.CPUs = 2
		if !c.Topology.IsZero() {
			c.CPUs = c.Topology.CPUs()
		}
	}
	return c
}

// Validate checks what QEMU would refuse late or, worse, cut off in silence.
func (c Config) Validate() error {
	c = c.WithDefaults()
	switch {
	case c.Kernel == "":
		return fmt.Errorf("qemu config: kernel: missing; give a bzImage or vmlinux")
	case c.MemoryMiB < MinMemoryMiB || c.MemoryMiB > MaxMemoryMiB:
		return fmt.Errorf("qemu config: memory: %d MiB is outside %d to %d", c.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("qemu config: cpus: %d is outside 1 to %d", c.CPUs, MaxCPUs)
	case len(c.Append) > CommandLineMax:
		return fmt.Errorf("qemu config: kernel command line: %d bytes, the kernel keeps %d", len(c.Append), CommandLineMax)
	case strings.ContainsAny(c.Append, "\x00\n"):
		return fmt.Errorf("qemu config: kernel command line: holds a NUL or a newline")
	}
	if err := c.Accel.validate(); err != nil {
		return err
	}
	if err := c.Topology.fits(c.Accel, c.MemoryMiB); err != nil {
		return fmt.Errorf("qemu config: %w", err)
	}
	if !c.Topology.IsZero() && c.CPUs != c.Topology.CPUs() {
		return fmt.Errorf("qemu config: cpus: %d, and topology %s has %d", c.CPUs, c.Topology, c.Topology.CPUs())
	}
	if c.Vsock != "" && c.VsockCID != 0 {
		return fmt.Errorf("qemu config: vsock: a guest has one device, of the kernel's or of a back end's")
	}
	for _, s := range []string{c.Link, c.QMP, c.Vsock} {
		if len(s) > socketPathMax {
			return fmt.Errorf("qemu config: socket %s: path longer than %d bytes; set a shorter TMPDIR", s, socketPathMax)
		}
	}
	return nil
}

// Args returns QEMU's arguments, without the binary. It is a function of c
// alone: equal configurations give equal command lines.
func (c Config) Args() []string {
	c = c.WithDefaults()
	machine := "q35"
	if c.SharedMemory() && !c.nodes() {
		machine += ",memory-backend=mem0"
	}
	smp := strconv.Itoa(c.CPUs)
	if !c.Topology.IsZero() {
		smp = c.Topology.smp()
	}
	args := []string{
		"-machine", machine,
		"-accel", c.Accel.String(),
		"-cpu", c.Accel.CPU,
		"-m", strconv.Itoa(c.MemoryMiB) + "M",
		"-smp", smp,
		"-kernel", c.Kernel,
	}
	if c.nodes() {
		args = append(args, c.Topology.numaArgs(c.MemoryMiB, c.SharedMemory())...)
	}
	if c.Initrd != "" {
		args = append(args, "-initrd", c.Initrd)
	}
	args = append(args, "-append", c.Append,
		// -nographic would give the guest a VGA and costs a second of boot.
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "stdio")
	if c.Link != "" {
		args = append(args, "-device", "virtio-serial-pci",
			"-chardev", chardev("link0", c.Link),
			"-device", "virtserialport,chardev=link0,name="+PortName)
	}
	args = append(args, c.vsockArgs()...)
	if c.QMP != "" {
		args = append(args, "-chardev", chardev("qmp0", c.QMP), "-mon", "chardev=qmp0,mode=control")
	}
	return append(args, c.Extra...)
}

// SharedMemory tells whether the guest's memory is to be files that another
// process maps, the back end of a device.
func (c Config) SharedMemory() bool { return c.Vsock != "" }

// nodes tells whether the guest has NUMA nodes of its own making.
func (c Config) nodes() bool { return c.Topology.Nodes > 1 }

// vsockArgs are the arguments of the vsock device, and of the memory that it
// needs.
func (c Config) vsockArgs() []string {
	switch {
	case c.Vsock != "":
		where := "path=" + strings.ReplaceAll(c.Vsock, ",", ",,")
		if fd, ok := strings.CutPrefix(c.Vsock, "fd:"); ok {
			where = "fd=" + fd
		}
		device := []string{"-chardev", "socket,id=vsock0," + where, "-device", "vhost-user-vsock-pci,chardev=vsock0"}
		if c.nodes() { // they have memory of their own
			return device
		}
		return append([]string{"-object", fmt.Sprintf("memory-backend-memfd,id=mem0,size=%dM,share=on", c.MemoryMiB)}, device...)
	case c.VsockCID != 0:
		device := fmt.Sprintf("vhost-vsock-pci,guest-cid=%d", c.VsockCID)
		if fd, ok := strings.CutPrefix(c.VsockFD, "fd:"); ok {
			device += ",vhostfd=" + fd
		}
		return []string{"-device", device}
	}
	return nil
}

// chardev is a socket chardev: on a descriptor that is connected already, or
// on a path that QEMU listens on without waiting for a peer.
func chardev(id, where string) string {
	if fd, ok := strings.CutPrefix(where, "fd:"); ok {
		return "socket,id=" + id + ",fd=" + fd
	}
	return "socket,id=" + id + ",path=" + strings.ReplaceAll(where, ",", ",,") + ",server=on,wait=off"
}

// Command returns the whole command line, quoted so that it can be pasted into
// a POSIX shell.
func (c Config) Command() string {
	c = c.WithDefaults()
	words := append([]string{c.Binary}, c.Args()...)
	for i, w := range words {
		words[i] = Quote(w)
	}
	return strings.Join(words, " ")
}

// Quote returns word as one POSIX shell word.
func Quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("@%+=:,./_-", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// FindBinary resolves name (default DefaultBinary) to a path, or says how to
// get QEMU.
func FindBinary(name string) (string, error) {
	if name == "" {
		name = DefaultBinary
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find QEMU: %w; install qemu-system-x86 or give --qemu PATH", err)
	}
	return path, nil
}
