package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
	"github.com/guestinit/guestinit/spec"
)

// bootTimeout bounds one boot.
const bootTimeout = 2 * time.Minute

// appendQuiet is the launcher's kernel command line; appendVerbose shows when
// the kernel hands over to /init.
const (
	appendQuiet   = qemu.BaseAppend + " guestinit.link=none"
	appendVerbose = appendQuiet + " loglevel=7"
)

// machine is what the boots of one kernel have in common.
type machine struct {
	kernel *kernel.Kernel
	spec   *spec.Spec
	init   string
	dir    string
	rounds int
}

// bootTimes are the times of one boot.
type bootTimes struct {
	whole time.Duration // from the start of QEMU to its end
	start time.Duration // from "Run /init" to the first line of /init
}

// boot boots a guest with init as its only program until it powers off.
func (m *machine) boot(ctx context.Context, init string, verbose bool) (b bootTimes, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	image, err := m.image(init)
	if err != nil {
		return b, err
	}
	defer image.Close()
	config, err := m.config(ctx, verbose)
	if err != nil {
		return b, err
	}
	watch := &lineClock{}
	begin := time.Now()
	vm, err := qemu.Start(ctx, config, qemu.Options{Initrd: image, Console: []io.Writer{watch}})
	if err != nil {
		return b, err
	}
	defer vm.Kill()
	select {
	case <-vm.Done():
	case <-ctx.Done():
		return b, fmt.Errorf("boot %s: %w", init, ctx.Err())
	}
	b.whole = time.Since(begin)
	if verbose {
		if b.start, err = watch.between("Run /init as init process", "first line", "guestinit: start"); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (m *machine) config(ctx context.Context, verbose bool) (c qemu.Config, err error) {
	c = qemu.Config{Append: appendQuiet}
	if verbose {
		c.Append = appendVerbose
	}
	if c.Kernel, err = m.kernel.Vmlinux(); err != nil {
		return c, err
	}
	version, err := qemu.ProbeVersion(ctx, qemu.DefaultBinary)
	if err != nil {
		return c, err
	}
	c.Accel, err = qemu.NewAccelerator(qemu.TCG, "", version)
	return c, err
}

// image is an initramfs with init and nothing else, as an open file.
func (m *machine) image(init string) (*os.File, error) {
	f, err := os.CreateTemp(m.dir, "image")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	if _, err := initramfs.Build(f, initramfs.Options{Init: init, Features: []string{}}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lineClock notes when each text first stood on the console.
type lineClock struct {
	mu    sync.Mutex
	text  []byte
	marks []mark
}

// mark is how long the console was at a time.
type mark struct {
	length int
	at     time.Time
}

// maxConsole bounds what is kept of a console.
const maxConsole = 4 << 20

// Write takes what the guest's console prints.
func (l *lineClock) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) < maxConsole {
		l.text = append(l.text, p...)
		l.marks = append(l.marks, mark{len(l.text), time.Now()})
	}
	return len(p), nil
}

// between is the time from one text on the console to the first of others
// behind it.
func (l *lineClock) between(from string, to ...string) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := bytes.Index(l.text, []byte(from))
	if i < 0 {
		return 0, fmt.Errorf("the console does not show %q; it ends with\n%s", from, l.text[max(0, len(l.text)-2000):])
	}
	for _, text := range to {
		if j := bytes.Index(l.text[i:], []byte(text)); j >= 0 {
			return l.at(i + j + len(text)).Sub(l.at(i + len(from))), nil
		}
	}
	return 0, fmt.Errorf("the console shows none of %q behind %q", to, from)
}

// at is when the console reached a length.
func (l *lineClock) at(length int) time.Time {
	for _, m := range l.marks {
		if m.length >= length {
			return m.at
		}
	}
	return time.Time{}
}
