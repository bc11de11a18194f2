package initramfs

import "github.com/guestinit/guestinit/kernel"

// Paths in the image that guestinit looks at when it boots. An image that has
// ModulesPath but not CompletePath, its last entry, was cut short.
const (
	InitPath     = "/init"
	LinkPath     = "/bbin/guestinit" // symbolic link to InitPath, where u-root's images have it
	ModulesPath  = "/etc/guestinit/modules"
	SpecPath     = "/etc/guestinit/spec.json"
	CompletePath = "/etc/guestinit/complete"
)

// Options says what goes into an image.
type Options struct {
	// Init is the static binary that becomes /init. Required.
	Init string
	// Kernel is the kernel that the image is for: its modules are packed.
	// Without it, or without modules of its own, nothing is packed, which
	// suits kernels that have all drivers built in.
	Kernel *kernel.Kernel
	// Features are the abilities that need drivers: "serial" and "vsock".
	// Nil means all, an empty slice none.
	Features []string
	// Files are the user's own files.
	Files []File
	// Spec is put at SpecPath when it is not empty.
	Spec []byte
	// Compression is "none" or empty, "gzip", "lz4" or "zstd". Up to tens
	// of megabytes none boots fastest.
	Compression string
}

// File is a host file or directory to be put into the image.
type File struct {
	// Src is the path on the host. A directory is taken with all below it.
	// The libraries that a dynamically linked program needs come with it.
	Src string
	// Dst is the path in the guest; empty means the absolute path of Src.
	Dst string
}

// Module is a kernel module in an image.
type Module struct {
	Feature string // what it is there for
	Name    string // with underscores, as lsmod shows it
	Path    string // absolute path in the image
}

// Manifest tells what is in an image that was built.
type Manifest struct {
	Paths    []string // every entry, absolute, in archive order
	Modules  []Module // in load order; one that two features need stands under both
	BuiltIn  []string // modules asked for that the kernel has built in, sorted
	Unpacked int64    // length of the archive in bytes
	Bytes    int64    // length of the image as written, after compression
	Notes    []string // what the user may want to know
}
