package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary a helper process; see helper.
const helperEnv = "GUEST_TEST_HELPER"

// children are the processes that a test waits for itself, as package spawn
// keeps its workers: the lock is held across a birth.
var children = registry{pids: map[int]bool{}}

type registry struct {
	mu    sync.Mutex
	pids  map[int]bool // guarded by mu
	asked atomic.Int64
}

func (r *registry) owns(pid int) bool {
	r.asked.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pids[pid]
}

// start starts the test binary as a helper.
func (r *registry) start(mode string) (*exec.Cmd, *strings.Builder, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	var out strings.Builder
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	r.pids[cmd.Process.Pid] = true
	return cmd, &out, nil
}

// wait waits for a helper and gives it up.
func (r *registry) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pids, cmd.Process.Pid)
	return err
}

// makeOrphan makes a process whose parent is gone.
func makeOrphan() (pid int, err error) {
	cmd, out, err := children.start("parent")
	if err != nil {
		return 0, err
	}
	if err := children.wait(cmd); err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out.String()))
}

// gone waits a while for a process to be dead and reaped.
func gone(pid int) bool {
	for range 1000 {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); errors.Is(err, os.ErrNotExist) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// helper is the life of a helper process; it returns its exit status.
func helper(mode string) int {
	switch mode {
	case "exit 7":
		return 7
	case "orphan":
		time.Sleep(50 * time.Millisecond)
		return 0
	case "parent":
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"=orphan")
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(cmd.Process.Pid)
		return 0
	case "reaper":
		if err := reapLikePID1(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	return 99
}

// reapLikePID1 runs in a process of its own that orphans come to.
func reapLikePID1() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	r := startReaper(children.owns, "/proc")
	defer r.Close()

	first, err := makeOrphan()
	if err != nil {
		return fmt.Errorf("orphan with nothing in the way: %w", err)
	}
	if !gone(first) {
		return errors.New("orphan with nothing in the way: left")
	}

	// Zombies that are owned now stand before all orphans.
	var zombies []*exec.Cmd
	for range 20 {
		cmd, _, err := children.start("exit 7")
		if err != nil {
			return err
		}
		zombies = append(zombies, cmd)
	}
	for _, z := range zombies {
		if !isZombie(z.Process.Pid) {
			return fmt.Errorf("child %d is not there as a zombie", z.Process.Pid)
		}
	}
	for i := range 3 {
		pid, err := makeOrphan()
		if err != nil {
			return fmt.Errorf("orphan %d behind owned zombies: %w", i, err)
		}
		if !gone(pid) {
			return fmt.Errorf("orphan %d behind owned zombies: left", i)
		}
	}

	// With nobody dying it must come to rest, zombies or not.
	time.Sleep(reapRepeat + 4*reapDistance)
	asked := children.asked.Load()
	time.Sleep(reapRepeat + 4*reapDistance)
	if n := children.asked.Load() - asked; n != 0 {
		return fmt.Errorf("asked %d times for owners while nobody died", n)
	}

	for _, z := range zombies {
		var exit *exec.ExitError
		if err := children.wait(z); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			return fmt.Errorf("owned child: got %v, want exit status 7", err)
		}
	}
	last, err := makeOrphan()
	if err != nil {
		return fmt.Errorf("orphan after the zombies: %w", err)
	}
	if !gone(last) {
		return errors.New("orphan after the zombies: left")
	}
	return nil
}

// isZombie waits a while for a process to be a zombie.
func isZombie(pid int) bool {
	for range 1000 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		if state := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))[0]; state == "Z" {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func TestReaper(t *testing.T) {
	cmd, _, err := children.start("reaper")
	if err != nil {
		t.Fatal(err)
	}
	if err := children.wait(cmd); err != nil {
		t.Errorf("reaper's process: %v", err)
	}
}

func TestChildrenOf(t *testing.T) {
	cmd, _, err := children.start("orphan")
	if err != nil {
		t.Fatal(err)
	}
	defer children.wait(cmd)
	for name, list := range map[string]func(string, int) ([]int, error){"children": childrenOf, "parent": childrenByParent} {
		pids, err := list("/proc", os.Getpid())
		if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
			t.Errorf("by %s: got %v, error %v, want %d in it", name, pids, err, cmd.Process.Pid)
		}
	}
}

// TestChildrenOfTree reads a /proc with threads, and one without children files.
func TestChildrenOfTree(t *testing.T) {
	write := func(dir, name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	threads := t.TempDir()
	write(threads, "1/task/1/children", "5 6 ")
	write(threads, "1/task/2/children", "")
	write(threads, "1/task/3/children", "70000 ")
	bare := t.TempDir()
	write(bare, "1/stat", "1 (init) S 0 1")
	write(bare, "5/stat", "5 (sh) S 1 5")
	write(bare, "6/stat", "6 (a) b (c) Z 1 5")
	write(bare, "7/stat", "7 (x) S 5 5")
	write(bare, "8/stat", "8 (torn")
	write(bare, "meminfo", "")
	for dir, want := range map[string][]int{threads: {5, 6, 70000}, bare: {5, 6}} {
		got, err := childrenOf(dir, 1)
		slices.Sort(got)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, error %v, want %v", got, err, want)
		}
	}
	if _, err := childrenOf(filepath.Join(bare, "none"), 1); err == nil {
		t.Error("no error for a /proc that is missing")
	}
}
