package spawn

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary play a helper process instead of running the
// tests; its value names the helper.
const helperEnv = "GUESTINIT_SPAWN_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		helpers[name]()
		os.Exit(0)
	}
	theCloner() // its thread and descriptors stay for good
	before := takeStock()
	code := m.Run()
	if leaks := takeStock().since(before); leaks != "" && code == 0 {
		fmt.Fprintln(os.Stderr, "FAIL: the tests left behind:", leaks)
		code = 1
	}
	os.Exit(code)
}

// stock is what a handle must not leave behind.
type stock struct{ fds, mappings, children int }

func takeStock() stock {
	var s stock
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		// The runtime's own poller comes with the first file that it watches.
		if link, _ := os.Readlink("/proc/self/fd/" + fd.Name()); !strings.HasPrefix(link, "anon_inode:[event") {
			s.fds++
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	s.mappings = strings.Count(string(maps), "/dev/zero") // shared memory of handles
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		children, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		s.children += len(strings.Fields(string(children)))
	}
	var si unix.Siginfo
	if unix.Waitid(unix.P_ALL, 0, &si, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil && s.children == 0 {
		s.children++
	}
	return s
}

func (s stock) since(before stock) string {
	var leaks []string
	add := func(what string, now, then int) {
		if now > then {
			leaks = append(leaks, fmt.Sprintf("%d %s", now-then, what))
		}
	}
	add("descriptors", s.fds, before.fds)
	add("mappings", s.mappings, before.mappings)
	add("children", s.children, before.children)
	return strings.Join(leaks, ", ")
}
