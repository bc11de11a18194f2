// Package kernel finds, fetches and opens the Linux kernels that guests boot.
//
// A kernel is an image (bzImage or vmlinux), a release string and, where the
// kernel has any, its modules directory. Kernels come from a path the user
// gives, from the cache that Fetch fills through apt, or from the running
// system. For a fast boot over PVH, Vmlinux unpacks the ELF image out of a
// bzImage once and keeps it.
//
// The package runs on the host. It never installs anything, never needs root
// and writes only below the cache directory, or beside a kernel of the user's.
package kernel
