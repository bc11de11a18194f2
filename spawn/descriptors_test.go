package spawn

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spec"
)

// ends is what a process has open, by what it can do with it: pipes that it
// reads or writes, and everything else by the file's name.
type ends struct{ reads, writes, others []string }

// openEnds reads /proc/PID/fd and fdinfo.
func openEnds(t *testing.T, pid int) ends {
	t.Helper()
	var e ends
	for _, file := range openFiles(t, pid) {
		fd, link, _ := strings.Cut(file, "=")
		if !strings.HasPrefix(link, "pipe:") {
			e.others = append(e.others, link)
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
		if err != nil {
			t.Fatal(err)
		}
		_, flags, _ := strings.Cut(string(info), "flags:")
		bits, err := strconv.ParseInt(strings.Fields(flags)[0], 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		if bits&unix.O_ACCMODE == unix.O_WRONLY {
			e.writes = append(e.writes, link)
		} else {
			e.reads = append(e.reads, link)
		}
	}
	return e
}

// TestEveryWorkerHasItsOwnDescriptors runs a mixed workload beside another one
// and compares what every process has open with what it must have: the ends that
// tie it to its partners, and nothing else (S8, S18, S24).
func TestEveryWorkerHasItsOwnDescriptors(t *testing.T) {
	neighbours := start(t, group(2, "pipe_io"), group(3, "wake_chain", "depth", uint64(3)))
	groups := []spec.Group{
		group(4, "pipe_io"), group(2, "cache_pipe"), group(8, "wake_chain"), group(2, "spin_wait"),
		group(2, "futex_ping_pong"), group(2, "io_sync_write", "path", t.TempDir(), "file_kib", uint64(64)),
		box("gi-pipes", 4, "pipe_io"), box("gi-none", 2, "spin_wait"), group(2, "pipe_io"),
	}
	h := start(t, groups...)
	waitRunning(t, h)
	waitRunning(t, neighbours)
	pids := h.WorkerPIDs()
	if len(pids) != 24 {
		t.Fatalf("%d processes", len(pids))
	}
	var all []ends
	for _, pid := range pids {
		all = append(all, openEnds(t, pid))
	}
	at := 0
	take := func(n int) []ends {
		at += n
		return all[at-n : at]
	}
	for _, n := range []int{4, 2} { // pipe_io, cache_pipe
		for pair := range slices.Chunk(take(n), 2) {
			wantRing(t, pair)
		}
	}
	for ring := range slices.Chunk(take(8), 4) {
		wantRing(t, ring)
	}
	for i, e := range take(4) { // spin_wait, futex_ping_pong
		if len(e.reads)+len(e.writes)+len(e.others) != 0 {
			t.Errorf("worker %d of a type without descriptors has %v", i, e)
		}
	}
	files := take(2)
	if a, b := files[0].others, files[1].others; len(a) != 1 || len(b) != 1 || a[0] == b[0] || !strings.Contains(a[0], "(deleted)") {
		t.Errorf("the I/O workers have %v and %v", a, b)
	}
	pipes, none := take(1)[0], take(1)[0]
	if len(pipes.reads) != 4 || len(pipes.writes) != 4 || len(pipes.others) != 0 ||
		!slices.Equal(slices.Sorted(slices.Values(pipes.reads)), slices.Sorted(slices.Values(pipes.writes))) {
		t.Errorf("a container of two pairs has %v", pipes)
	}
	if len(none.reads)+len(none.writes)+len(none.others) != 0 {
		t.Errorf("a container without pipes has %v", none)
	}
	wantRing(t, take(2))
	wantDistinct(t, all, neighbours)
	for _, r := range collect(t, h) {
		if !r.Completed {
			t.Errorf("%s worker %d: %+v", r.WorkType, r.Index, r.ExitInfo)
		}
	}
}

// wantRing checks that each stage reads what the one before it writes, and has
// nothing else; a pair is a ring of two.
func wantRing(t *testing.T, stages []ends) {
	t.Helper()
	for i, e := range stages {
		before := stages[(i+len(stages)-1)%len(stages)]
		if len(e.reads) != 1 || len(e.writes) != 1 || len(e.others) != 0 || !slices.Equal(e.reads, before.writes) {
			t.Errorf("stage %d of %d has %v, the one before it %v", i, len(stages), e, before)
		}
	}
}

// wantDistinct checks that no pipe has two readers or two writers, that the
// spawner has none of them, and that another handle's workers have none.
func wantDistinct(t *testing.T, all []ends, neighbours *Handle) {
	t.Helper()
	readers, writers := map[string]int{}, map[string]int{}
	count := func(e ends) {
		for _, p := range e.reads {
			readers[p]++
		}
		for _, p := range e.writes {
			writers[p]++
		}
	}
	for _, e := range all {
		count(e)
	}
	for _, pid := range neighbours.WorkerPIDs() {
		count(openEnds(t, pid))
	}
	if len(readers) != 4+2+8+4+2+2+3 || !maps.Equal(readers, writers) {
		t.Errorf("%d pipes are read, %d written", len(readers), len(writers))
	}
	for p, n := range readers {
		if n != 1 {
			t.Errorf("%s has %d readers", p, n)
		}
	}
	own := openEnds(t, os.Getpid())
	for _, p := range slices.Concat(own.reads, own.writes) {
		if readers[p] > 0 {
			t.Errorf("the spawner still holds %s", p)
		}
	}
}

// TestPartnerSeesTheEnd kills one worker of a pair: the pipes have no other
// owner, so its partner is not stuck and stops in time (S18, S32).
func TestPartnerSeesTheEnd(t *testing.T) {
	h := start(t, group(2, "pipe_io"))
	waitPasses(t, h)
	if err := unix.Kill(h.WorkerPIDs()[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reports := collect(t, h)
	if reports[0].Completed || !reports[1].Completed {
		t.Errorf("reports %+v", reports)
	}
}

// TestDescriptorsAreCloseOnExec looks at what a Spawn opens in this process, the
// descriptors of thread workers included: no program that it executes would have
// any of them (S8).
func TestDescriptorsAreCloseOnExec(t *testing.T) {
	before := openFiles(t, os.Getpid())
	h := startMode(t, Thread, group(2, "pipe_io"), group(4, "wake_chain"), group(3, "epoll_storm"),
		group(1, "io_sync_write", "path", t.TempDir(), "file_kib", uint64(64)))
	forks := start(t, group(2, "spin_wait"))
	waitRunning(t, h)
	waitRunning(t, forks)
	seen := 0
	for _, file := range openFiles(t, os.Getpid()) {
		if slices.Contains(before, file) {
			continue
		}
		number, link, _ := strings.Cut(file, "=")
		fd, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == unix.EBADF {
			continue // the directory that was just read
		}
		if seen++; err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d (%s) is inherited by programs: flags %d, %v", fd, link, flags, err)
		}
	}
	// Two pipes for the pair, four for the ring, two for the events, the file; an
	// epoll instance for each handle, and a pidfd for each process.
	if want := 4 + 8 + 2 + 1 + 2 + 2; seen < want {
		t.Errorf("%d descriptors were opened, want %d", seen, want)
	}
}
