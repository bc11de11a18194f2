package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/guesttest"
)

// helperEnv makes the test binary play a helper process instead of running the
// tests; its value names the helper.
const helperEnv = "GUESTINIT_SPAWN_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		helpers[name]()
		os.Exit(0)
	}
	if os.Getpid() == 1 {
		guesttest.Init("spawn tests", enableControllers, func() int { return runTests(m) })
	}
	os.Exit(runTests(m))
}

// runTests runs the tests and counts what they leave behind (S33).
func runTests(m *testing.M) int {
	theCloner() // its thread and descriptors stay for good
	startPoller()
	before := takeStock()
	code := m.Run()
	if leaks := settledLeaks(before); leaks != "" && code == 0 {
		fmt.Fprintln(os.Stderr, "FAIL: the tests left behind:", leaks)
		code = 1
	}
	return code
}

// startPoller makes the runtime open what it watches files with, an epoll instance
// and an eventfd, which it keeps: those that are there later are a handle's.
func startPoller() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

// settledLeaks is what was left behind, once what is on its way out has gone.
func settledLeaks(before stock) (leaks string) {
	for range 50 {
		reapOrphans()
		if leaks = takeStock().since(before); leaks == "" {
			return ""
		}
		time.Sleep(20 * time.Millisecond)
	}
	return leaks
}

// reapOrphans does what an init or a subreaper does: it reaps what killed spawners
// left to it, such as a worker that one had just cloned. A worker of ours that
// nobody reaped stays, and counts.
func reapOrphans() {
	links, _ := filepath.Glob("/proc/[0-9]*")
	for _, link := range links {
		if pid, err := strconv.Atoi(filepath.Base(link)); err == nil && !Owns(pid) {
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// stock is what a handle must not leave behind.
type stock struct {
	fds                                            []string // what they are
	mappings, stacks, children, processes, threads int
}

func takeStock() stock {
	s := stock{processes: len(sameProgram()), threads: workerThreads()}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil { // not the directory that was read
			s.fds = append(s.fds, link)
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	s.mappings = strings.Count(string(maps), "/dev/zero") // shared memory of handles
	s.stacks = guardPages(string(maps))
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

// guardPages counts mappings of one page without access: each worker stack has
// one, and the Go runtime has none.
func guardPages(maps string) int {
	n := 0
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) < 2 || f[1] != "---p" {
			continue
		}
		lo, hi, _ := strings.Cut(f[0], "-")
		l, err1 := strconv.ParseUint(lo, 16, 64)
		h, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 == nil && err2 == nil && h-l == pageSize {
			n++
		}
	}
	return n
}

// sameProgram lists the other processes that run this program: workers, wherever
// they were reparented to, and helpers.
func sameProgram() (pids []int) {
	self, _ := os.Readlink("/proc/self/exe")
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if exe, err := os.Readlink(link); err == nil && exe == self && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// workerThreads counts the threads of this process that have SIGTERM blocked:
// workers have, and threads of the Go runtime have it for no longer than their
// birth takes.
func workerThreads() int {
	n := 0
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		if mask, err := signalMask("/proc/self/task/"+t.Name(), "SigBlk"); err == nil && mask&(1<<(unix.SIGTERM-1)) != 0 {
			n++
		}
	}
	return n
}

// signalMask reads one of the signal masks of a task's status file.
func signalMask(dir, field string) (uint64, error) {
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + field + `:\s*([0-9a-f]+)$`).FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("%s/status has no %s", dir, field)
	}
	return strconv.ParseUint(string(m[1]), 16, 64)
}

func (s stock) since(before stock) string {
	var leaks []string
	add := func(what string, now, then int) {
		if now > then {
			leaks = append(leaks, fmt.Sprintf("%d %s", now-then, what))
		}
	}
	add(fmt.Sprintf("descriptors %q beside %q", s.fds, before.fds), len(s.fds), len(before.fds))
	add("mappings", s.mappings, before.mappings)
	add("worker stacks", s.stacks, before.stacks)
	add("children", s.children, before.children)
	add("processes", s.processes, before.processes)
	add("threads", s.threads, before.threads)
	return strings.Join(leaks, ", ")
}
