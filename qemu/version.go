package qemu

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Version is a version of QEMU.
type Version struct {
	Major, Minor, Micro int
}

// String returns the dotted form, such as "7.2.22".
func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
}

// versionTimeout bounds "qemu --version", which takes some 30 ms.
const versionTimeout = 10 * time.Second

// ProbeVersion asks binary for its version.
func ProbeVersion(ctx context.Context, binary string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.WaitDelay = time.Second
	var out, errs tail
	out.limit, errs.limit = 4096, 4096
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return Version{}, fmt.Errorf("run %s --version: %w%s", binary, err, indented(errs.Bytes()))
	}
	v, err := ParseVersion(string(out.Bytes()))
	if err != nil {
		return Version{}, fmt.Errorf("run %s --version: %w", binary, err)
	}
	return v, nil
}

// ParseVersion reads the first line that "qemu --version" prints:
// "QEMU emulator version 7.2.22 (Debian ...)".
func ParseVersion(text string) (Version, error) {
	line, _, _ := strings.Cut(text, "\n")
	_, rest, ok := strings.Cut(line, "version ")
	if !ok {
		return Version{}, fmt.Errorf("parse QEMU version %q: no version in it", clip(line, 80))
	}
	var v Version
	if n, _ := fmt.Sscanf(rest, "%d.%d.%d", &v.Major, &v.Minor, &v.Micro); n < 2 {
		return Version{}, fmt.Errorf("parse QEMU version %q: not MAJOR.MINOR.MICRO", clip(line, 80))
	}
	return v, nil
}

// clip cuts s to at most n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

// indented puts captured output below a message, or nothing if there is none.
func indented(out []byte) string {
	s := strings.TrimSpace(string(out))
	if s == "" {
		return ""
	}
	return "\n\t" + strings.ReplaceAll(s, "\n", "\n\t")
}
