// Package launch is the host's side of a run: it finds the kernel, packs the
// image, boots it under QEMU, serves the spec, follows the guest and returns
// the report. [Run] does all of it.
//
// Whatever the guest, QEMU or the machine do, Run ends: every stage has a
// deadline, and QEMU never outlives the calling process, however that ends.
// What went wrong is an [Error] of one [Class], and each class is an exit
// status of the command. What the guest had sent by then is in the report.
//
// The package is below cmd and above kernel, initramfs, qemu, vsock, report
// and spec. It runs no workload and reads no spec file.
package launch
