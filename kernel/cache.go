package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir returns the directory that guestinit keeps its caches in:
// $GUESTINIT_CACHE, else $XDG_CACHE_HOME/guestinit, else ~/.cache/guestinit.
// The directory may not exist yet.
func CacheDir() (string, error) {
	if dir := os.Getenv("GUESTINIT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w; set GUESTINIT_CACHE", err)
	}
	return filepath.Join(dir, "guestinit"), nil
}

func kernelsDir() (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "kernels"), nil
}

// List returns the kernels in the cache, newest first. An empty or missing
// cache is an empty list; a directory without a kernel in it is left out.
func List() ([]*Kernel, error) {
	dir, err := kernelsDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	var out []*Kernel
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if k, err := openDir(filepath.Join(dir, e.Name()), ""); err == nil {
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b *Kernel) int { return compareVersions(b.Release, a.Release) })
	return out, nil
}

// Named returns the newest kernel in the cache of a version or release ("6.12"),
// or the kernel at a path, which has a slash in it.
func Named(name string) (*Kernel, error) {
	if strings.Contains(name, "/") {
		return Open(name, "")
	}
	k, err := cached(name)
	if err == nil && k == nil {
		err = fmt.Errorf("no kernel %s in the cache; try: guestinit kernel fetch %s", name, name)
	}
	return k, err
}

// cached returns the newest kernel in the cache that matches version.
func cached(version string) (*Kernel, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		if matchesVersion(k.Release, strings.TrimPrefix(version, imagePrefix)) {
			return k, nil
		}
	}
	return nil, nil
}

// lockPoll is how often lockDir looks again; flock(2) offers nothing to wait
// on that a context could interrupt.
const lockPoll = 200 * time.Millisecond

// lockDir takes an exclusive lock on dir/.lock, waiting until ctx ends. The
// lock is gone when unlock is called or the process dies.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	name := filepath.Join(dir, ".lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("lock the cache: %w; name a directory of your own by GUESTINIT_CACHE", err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s, held by another fetch: %w", name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
