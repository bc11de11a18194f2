package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one row of the mount table.
type mount struct {
	fstype   string
	target   string // below the root
	flags    uintptr
	data     string
	required bool
	config   string // the kernel option that brings the file system
	magic    int64  // statfs(2) f_type, to know a mount that is there already
}

// mounts returns the mount table, in order. The first row is proc.
func mounts() []mount {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	return []mount{
		{"proc", "proc", quiet, "", true, "CONFIG_PROC_FS", unix.PROC_SUPER_MAGIC},
		{"sysfs", "sys", quiet, "", false, "CONFIG_SYSFS", unix.SYSFS_MAGIC},
		{"devtmpfs", "dev", unix.MS_NOSUID, "mode=0755", false, "CONFIG_DEVTMPFS", unix.TMPFS_MAGIC},
		{"devpts", "dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666", false, "CONFIG_UNIX98_PTYS", unix.DEVPTS_SUPER_MAGIC},
		{"tmpfs", "dev/shm", plain, "mode=1777", false, "CONFIG_TMPFS", unix.TMPFS_MAGIC},
		{"tmpfs", "tmp", plain, "mode=1777", false, "CONFIG_TMPFS", unix.TMPFS_MAGIC},
		{"tmpfs", "run", plain, "mode=0755", false, "CONFIG_TMPFS", unix.TMPFS_MAGIC},
		{"cgroup2", "sys/fs/cgroup", quiet, "", true, "CONFIG_CGROUPS", unix.CGROUP2_SUPER_MAGIC},
		{"tracefs", "sys/kernel/tracing", quiet, "", false, "CONFIG_FTRACE", unix.TRACEFS_MAGIC},
		{"debugfs", "sys/kernel/debug", quiet, "", false, "CONFIG_DEBUG_FS", unix.DEBUGFS_MAGIC},
		{"bpf", "sys/fs/bpf", quiet, "mode=0700", false, "CONFIG_BPF_SYSCALL", unix.BPF_FS_MAGIC},
		{"securityfs", "sys/kernel/security", quiet, "", false, "CONFIG_SECURITYFS", unix.SECURITYFS_MAGIC},
	}
}

func (b *boot) mountProc() (string, error) { return "", b.mount(mounts()[0]) }

// mountAll mounts all rows but the first. The required ones that fail end the
// run; of the others one note tells all.
func (b *boot) mountAll() (string, error) {
	var failed, required []string
	rows := mounts()[1:]
	for _, m := range rows {
		err := b.mount(m)
		switch {
		case err == nil:
		case m.required:
			required = append(required, err.Error())
		default:
			failed = append(failed, err.Error())
		}
	}
	if len(failed) > 0 {
		b.note("mounts: " + strings.Join(failed, "; "))
	}
	if len(required) > 0 {
		return "", errors.New(strings.Join(required, "; "))
	}
	return fmt.Sprintf("%d file systems", len(rows)-len(failed)+1), nil
}

// mount mounts one row, unless its file system is there already: below another
// init it may be.
func (b *boot) mount(m mount) error {
	target := b.path(m.target)
	switch is, mounted := mountedOn(target); {
	case mounted && is == m.magic:
		return nil
	case mounted && m.fstype == "cgroup2":
		// The tmpfs and the v1 hierarchies of u-root's init, which hold the
		// controllers that cgroup2 is to have.
		if err := b.sys.Unmount(target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount what is on /%s: %w", m.target, err)
		}
	}
	// In sysfs a directory that is missing cannot be made: the mount says so.
	mkdirErr := os.MkdirAll(target, 0o755)
	err := b.sys.Mount(m.fstype, target, m.fstype, m.flags, m.data)
	switch {
	case err == nil, errors.Is(err, unix.EBUSY):
		return nil
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("mount %s on /%s: %w: the kernel lacks %s", m.fstype, m.target, err, m.config)
	case errors.Is(err, unix.ENOENT) && mkdirErr != nil:
		return fmt.Errorf("mount %s on /%s: no such directory: the kernel lacks %s", m.fstype, m.target, m.config)
	}
	return fmt.Errorf("mount %s on /%s: %w", m.fstype, m.target, err)
}

// mountedOn returns the type of the file system mounted on a directory, and
// whether there is one.
func mountedOn(dir string) (magic int64, mounted bool) {
	var self, parent unix.Stat_t
	if unix.Stat(dir, &self) != nil || unix.Stat(filepath.Dir(dir), &parent) != nil || self.Dev == parent.Dev {
		return 0, false
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0, false
	}
	return int64(fs.Type), true
}
