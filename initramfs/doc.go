// Package initramfs builds the image that a guest boots from: guestinit as
// /init, the kernel modules that its host link needs, the user's files and,
// if wanted, the spec.
//
// Images are newc cpio archives on u-root's writer. The same inputs give the
// same bytes, whenever and by whomever they are built. What guestinit reads in
// an image lies in /etc/guestinit:
//
//	modules    one line "<feature> <path of the .ko>" per module, in load
//	           order; a module that two features need has a line for each
//	spec.json  the spec, where the image carries one
//	complete   the last entry: an image with modules but without it was cut
//
// The package runs on the host. It imports package kernel and knows nothing
// of QEMU or of what a spec means.
package initramfs
