package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// reexecArg makes this program play a re-executed worker.
const reexecArg = "--worker"

// reexecChild says that it is up and waits until its input ends.
func reexecChild() {
	os.Stdout.Write([]byte{1})
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// reexecAll starts n copies of this program and waits until each has said that
// it is up, as harnesses do whose workers are processes of their own.
func reexecAll(n int) (time.Duration, error) {
	up, upWrite, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer up.Close()
	stay, release, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	var cmds []*exec.Cmd
	defer func() {
		release.Close()
		for _, c := range cmds {
			c.Wait()
		}
	}()
	begin := time.Now()
	for range n {
		c := exec.Command("/proc/self/exe", reexecArg)
		c.Stdin, c.Stdout = stay, upWrite
		if err := c.Start(); err != nil {
			return 0, fmt.Errorf("re-execute: %w", err)
		}
		cmds = append(cmds, c)
	}
	stay.Close()
	upWrite.Close()
	if _, err := io.ReadFull(up, make([]byte, n)); err != nil {
		return 0, fmt.Errorf("wait for re-executed workers: %w", err)
	}
	return time.Since(begin), nil
}
