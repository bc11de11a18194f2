// Package qemu runs one guest under QEMU: it builds the command line, decides
// between KVM and TCG by trying, starts the process so that it never outlives
// the caller, drains and watches the console, and speaks QMP.
//
// It knows nothing of workloads, specs or reports and imports nothing else of
// guestinit. Only x86-64 guests are built so far; the package compiles
// everywhere Linux does.
//
// The life of a VM: [Config] says what to boot, [Start] returns a [VM] whose
// console is being drained already and whose link is connected already,
// [VM.Done] closes when the process is gone and the console is complete, and
// [VM.Exit] then says how it went. [VM.Kill] may be called at any time.
package qemu
