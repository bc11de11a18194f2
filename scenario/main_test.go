package scenario

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/guesttest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "types" { // the program that an example runs
		fmt.Println("spin_wait")
		os.Exit(0)
	}
	if os.Getpid() == 1 {
		guesttest.Init("scenario tests", nil, m.Run) // the engine enables controllers
	}
	os.Exit(m.Run())
}

// unable skips a test that this machine cannot run.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	guesttest.Unable(t, "TestScenarioInGuest", format, args...)
}

// controllers skips a test where cgroups cannot be made or lack controllers.
func controllers(t *testing.T, names ...string) {
	t.Helper()
	if unix.Geteuid() != 0 {
		unable(t, "cgroups need root")
	}
	root := cgroupRoot(t)
	have, err := fields(root, "cgroup.controllers")
	if err != nil {
		unable(t, "no cgroup v2: %v", err)
	}
	for _, name := range names {
		if !strings.Contains(" "+strings.Join(have, " ")+" ", " "+name+" ") {
			unable(t, "cgroup v2 has no controller %s here", name)
		}
	}
}
