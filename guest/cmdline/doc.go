// Package cmdline reads and writes the guest's part of the kernel command line:
// the keys guestinit.*, quoted as the kernel quotes, and the spec in the form
// that stands there. Both sides use it: the guest to parse, the launcher to
// write. It imports nothing else of guestinit and never reads a file.
package cmdline
