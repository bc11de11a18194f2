package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/initramfs"
	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/qemu"
)

const (
	guestTimeout = 5 * time.Minute // bounds one guest
	guestRounds  = 5
	guestCPUs    = 2

	// What the guest's program prints around its table.
	tableBegin = "stop: table"
	tableEnd   = "stop: end, goals missed: "
)

// guestMain is this program as /init of a guest: it runs the crowds, prints
// their table and switches the machine off.
func guestMain(crowd int) {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Printf("mount %s on %s: %v\n", m[0], m[1], err)
		}
	}
	fmt.Println(tableBegin)
	missed, err := table(crowds(crowd), guestRounds)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%s%d\n", tableEnd, missed)
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("power off:", err)
	select {}
}

// benchGuest boots this program as /init on a kernel (a version in the cache, or
// a path) and prints its table.
func benchGuest(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), guestTimeout)
	defer cancel()
	k, err := kernel.Named(name)
	if err != nil {
		return err
	}
	image, err := guestImage()
	if err != nil {
		return err
	}
	defer image.Close()
	config := qemu.Config{CPUs: guestCPUs, MemoryMiB: 1024,
		Append: qemu.BaseAppend}
	if config.Kernel, err = k.Vmlinux(); err != nil {
		return err
	}
	version, err := qemu.ProbeVersion(ctx, qemu.DefaultBinary)
	if err != nil {
		return err
	}
	if config.Accel, err = qemu.NewAccelerator(qemu.TCG, "", version); err != nil {
		return err
	}
	var console bytes.Buffer
	vm, err := qemu.Start(ctx, config, qemu.Options{Initrd: image, Console: []io.Writer{&console}})
	if err != nil {
		return err
	}
	defer vm.Kill()
	select {
	case <-vm.Done():
	case <-ctx.Done():
		vm.Kill()
		<-vm.Done()
		return fmt.Errorf("guest of %s: %w; its console shows\n%s", k.Release, ctx.Err(), console.String())
	}
	return printGuest(k.Release, strings.ReplaceAll(console.String(), "\r\n", "\n"))
}

// printGuest prints what stands between the guest's two marks.
func printGuest(release, console string) error {
	_, rest, ok := strings.Cut(console, tableBegin+"\n")
	text, rest, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("guest of %s printed no table; its console shows\n%s", release, console)
	}
	fmt.Printf("\nin a guest of %s, %d CPUs (TCG), %d rounds\n\n%s", release, guestCPUs, guestRounds, text)
	if missed, _, _ := strings.Cut(rest, "\n"); missed != "0" {
		return fmt.Errorf("guest of %s: %s goals missed", release, missed)
	}
	return nil
}

// guestImage is an initramfs with this program as /init, as an open file.
func guestImage() (*os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "guestinit-bench")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	if _, err := initramfs.Build(f, initramfs.Options{Init: self, Features: []string{}}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
