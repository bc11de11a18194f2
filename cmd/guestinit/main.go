// Command guestinit boots Linux kernels in QEMU and runs scheduler workloads on
// them. Started on a host it is the launcher; as PID 1 of a guest it is the init
// that runs the workload and reports.
package main

import (
	"os"

	"github.com/guestinit/guestinit/guest/workload"
)

func main() {
	workload.Init(version())
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}
