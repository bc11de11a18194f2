package spawn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/worker"
)

// emptyTimeout bounds the wait until the last process has left a cgroup.
const emptyTimeout = time.Second

// cgroupSerial tells the directories of one process apart.
var cgroupSerial atomic.Uint64

// makeLeaves makes n cgroups below the group's own and lets all workers move
// between them.
func (a *arena) makeLeaves(p *groupPlan, slabs []*worker.Slab, n int) error {
	for i := range n {
		fd, err := a.makeCgroup(p.cgroup)
		if err != nil {
			return err
		}
		for _, s := range slabs {
			give(s, i, fd)
		}
	}
	return nil
}

// makeTarget opens the cgroup that workers attach to, or makes one.
func (a *arena) makeTarget(p *groupPlan, slabs []*worker.Slab, dest string) (err error) {
	var fd int
	if dest == "" {
		fd, err = a.makeCgroup(p.cgroup)
	} else {
		fd, err = a.openCgroup(dest)
	}
	if err != nil {
		return err
	}
	for _, s := range slabs {
		give(s, 0, fd)
	}
	return nil
}

// makeCgroup makes a cgroup below another, or below this process's own for "", to
// be removed with the handle, and opens its cgroup.procs.
func (a *arena) makeCgroup(parent string) (int, error) {
	dir, err := a.makeCgroupDir(parent)
	if err != nil {
		return -1, err
	}
	return a.openProcs(dir)
}

func (a *arena) makeCgroupDir(parent string) (string, error) {
	if parent == "" {
		root, own, err := cgroup2()
		if err != nil {
			return "", err
		}
		parent = filepath.Join(root, own)
	}
	dir := filepath.Join(parent, fmt.Sprintf("guestinit-work-%d-%d", os.Getpid(), cgroupSerial.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	a.cgroups = append(a.cgroups, dir)
	return dir, nil
}

// programCgroup makes a cgroup for the programs of a group, so that all they
// start can be killed with them; "" where this process may make none. It has no
// controllers: to the scheduler and all others it is not there.
func (a *arena) programCgroup() string {
	dir, err := a.makeCgroupDir("")
	if err != nil {
		return ""
	}
	a.programCgroups = append(a.programCgroups, dir)
	return dir
}

// openCgroup opens an existing cgroup, named from the root of the hierarchy.
func (a *arena) openCgroup(dest string) (int, error) {
	root, _, err := cgroup2()
	if err != nil {
		return -1, err
	}
	if slices.Contains(strings.Split(dest, "/"), "..") {
		return -1, fmt.Errorf("work.dest: %q has a .. in it; name the cgroup from the root of the hierarchy", dest)
	}
	return a.openProcs(filepath.Join(root, dest))
}

func (a *arena) openProcs(dir string) (int, error) {
	name := dir + "/cgroup.procs"
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("attach to cgroup: %w", &fs.PathError{Op: "open", Path: name, Err: err})
	}
	return a.keep(fd), nil
}

// cgroup2 is where the cgroup v2 hierarchy is mounted, and the path of this
// process's cgroup in it.
func cgroup2() (root, own string, err error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", fmt.Errorf("find the cgroup v2 hierarchy: %w", err)
	}
	defer mounts.Close()
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", fmt.Errorf("find own cgroup: %w", err)
	}
	if root, own = findCgroup2(mounts, string(membership)); root == "" {
		return "", "", errors.New("find the cgroup v2 hierarchy: none is mounted; mount -t cgroup2 none /sys/fs/cgroup")
	}
	return root, own, nil
}

// findCgroup2 reads proc_pid_mountinfo(5) and the membership of cgroups(7).
func findCgroup2(mountinfo io.Reader, membership string) (root, own string) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() && root == "" {
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if found && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			root = fields[4]
		}
	}
	for line := range strings.Lines(membership) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSpace(path)
		}
	}
	return root, own
}

// removeRounds bounds how often a cgroup is emptied before it is given up: what is
// in it may be making more.
const removeRounds = 3

// removeCgroup ends what is left in a cgroup and removes it, with cgroups that
// others made inside. One that is gone is no error.
func removeCgroup(dir string) (err error) {
	for range removeRounds {
		if err = onCgroup2(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			break
		}
		killAll(dir)
		waitErr := waitEmpty(dir)
		if err = removeDirs(dir, maxNested); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err = errors.Join(err, waitErr); waitErr != nil {
			break
		}
	}
	return fmt.Errorf("remove cgroup: %w", err)
}

// onCgroup2 makes sure that a directory is a cgroup of the tree that it seems to be
// in: something else may be mounted there, whose files, directories and processes
// are nobody's to end. Kernels before 5.8 tell no mount of another cgroup.
func onCgroup2(dir string) error {
	var fs2 unix.Statfs_t
	if err := unix.Statfs(dir, &fs2); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	var at unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &at); err != nil {
		return &fs.PathError{Op: "statx", Path: dir, Err: err}
	}
	if fs2.Type != unix.CGROUP2_SUPER_MAGIC || at.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return fmt.Errorf("something is mounted on %s; umount it", dir)
	}
	return nil
}

// killAll kills what is in a cgroup and in those inside. Before Linux 5.14, what
// is left ends by itself.
func killAll(dir string) {
	f, err := os.OpenFile(dir+"/cgroup.kill", os.O_WRONLY, 0) // never made: the kernel has it or not
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString("1")
}

// maxNested bounds how deep foreign cgroups are followed.
const maxNested = 64

// removeDirs removes a cgroup after those inside. It never leaves the file system
// of cgroups.
func removeDirs(dir string, levels int) error {
	if err := onCgroup2(dir); err != nil {
		return err
	}
	err := unix.Rmdir(dir)
	if err != unix.EBUSY || levels == 0 {
		return rmdirError(dir, err)
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		return errors.Join(rmdirError(dir, err), readErr)
	}
	for _, x := range entries {
		if !x.IsDir() {
			continue
		}
		if err := removeDirs(filepath.Join(dir, x.Name()), levels-1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return rmdirError(dir, unix.Rmdir(dir))
}

func rmdirError(dir string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
}

// waitEmpty waits until no process is in the cgroup. A change of cgroup.events
// is an exceptional condition to poll(2).
func waitEmpty(dir string) error {
	f, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		return err
	}
	defer f.Close()
	deadline := time.Now().Add(emptyTimeout)
	for {
		events := make([]byte, 256)
		n, err := f.ReadAt(events, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		left := time.Until(deadline)
		if strings.Contains(string(events[:n]), "populated 0") {
			return nil
		}
		if left <= 0 {
			return fmt.Errorf("%s still has processes after %v", dir, emptyTimeout)
		}
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll %s: %w", f.Name(), err)
		}
	}
}
