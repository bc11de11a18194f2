// Package workload makes a program the /init of its guests: PID 1 reads the spec,
// runs it through the pipeline and reports to the host. The guestinit command is
// such a program; so is a test binary whose TestMain calls [Init], which can then
// boot itself with launch.Run, work types of its own included:
//
//	func TestMain(m *testing.M) {
//		workload.Init("") // in a guest this is where it ends
//		os.Exit(m.Run())
//	}
//
// Such a program is to be built with CGO_ENABLED=0. The package joins guest, which
// knows no workload, and scenario, which knows no guest; it has no logic of its own
// beyond that.
package workload

import (
	"github.com/guestinit/guestinit/guest"
	"github.com/guestinit/guestinit/program"
	"github.com/guestinit/guestinit/spawn"
)

// Init returns at once, unless the process is to be a guest's init: then it lives
// the life of the guest and never returns. version is of the program, for the
// report; it may be empty. What the spec needs, such as work types of the program's
// own, is to be registered before.
func Init(version string) {
	if guest.IsInit() {
		guest.Main(run, guest.Options{Version: version, Owned: owns})
	}
}

// owns tells whether somebody waits for a child by its pid.
func owns(pid int) bool { return spawn.Owns(pid) || program.Owns(pid) }
