// Command guestinit boots Linux kernels in QEMU and runs scheduler workloads on
// them. Started on a host it is the launcher; as PID 1 of a guest it is the init
// that runs the workload and reports.
package main

import (
	"os"

	"github.com/guestinit/guestinit/guest"
	"github.com/guestinit/guestinit/program"
	"github.com/guestinit/guestinit/spawn"
)

func main() {
	if guest.IsInit() {
		guest.Main(runInGuest, guest.Options{Version: version(), Owned: owns})
	}
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// owns tells whether somebody waits for a child by its pid.
func owns(pid int) bool { return spawn.Owns(pid) || program.Owns(pid) }
