package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// versionFile is where CachedVersion keeps its answer.
const versionFile = "qemu-version.json"

// CachedVersion is ProbeVersion with a memory in dir ("" for none): asking QEMU
// takes some 30 ms, on the way of every run. The answer holds for one file,
// known by path, inode, size and times; a script that stands in for QEMU is
// always asked, because what it starts may change behind it.
func CachedVersion(ctx context.Context, binary, dir string) (Version, error) {
	key := versionKey(binary)
	if dir == "" || key == "" {
		return ProbeVersion(ctx, binary)
	}
	path := filepath.Join(dir, versionFile)
	var kept struct {
		Key     string  `json:"key"`
		Version Version `json:"version"`
	}
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &kept) == nil && kept.Key == key && kept.Version.Major > 0 {
		return kept.Version, nil
	}
	v, err := ProbeVersion(ctx, binary)
	if err != nil {
		return v, err
	}
	kept.Key, kept.Version = key, v
	if data, err := json.Marshal(kept); err == nil {
		_ = replaceFile(path, data) // without it the next run asks again
	}
	return v, nil
}

// versionKey names what an answer holds for, "" for nothing.
func versionKey(binary string) string {
	path, err := filepath.EvalSymlinks(binary)
	if err != nil {
		return ""
	}
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !isELF(path) {
		return ""
	}
	return fmt.Sprintf("1 %s dev %d ino %d size %d mtime %d ctime %d", path, st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// isELF tells a program from a script.
func isELF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = f.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == "\x7fELF"
}

// replaceFile writes a file of the cache whole or not at all: runs beside each
// other share it.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, werr := f.Write(append(data, '\n'))
	if err := firstError(werr, f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		os.Remove(f.Name())
		return err
	}
	return nil
}
