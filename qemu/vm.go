package qemu

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options is what Start needs beside the machine.
type Options struct {
	// Console are writers that each get all of the guest's serial console,
	// from a goroutine of their own. One that blocks loses output but stops
	// neither the guest nor the others.
	Console []io.Writer
	// Initrd, if set, is the initramfs as an open file, such as a memfd; it
	// replaces Config.Initrd. Start does not close it.
	Initrd *os.File
	// Vsock is the back end's connection for Config.Vsock, of a socket pair, or
	// /dev/vhost-vsock for Config.VsockCID, as an open file. Start does not
	// close it.
	Vsock *os.File
}

// VM is a running QEMU process and, after Done, what is left of it.
type VM struct {
	cmd     *exec.Cmd
	link    net.Conn
	qmp     *QMP
	console *drain
	stderr  tail
	events  chan Event
	done    chan struct{}

	mu   sync.Mutex
	exit Exit
}

// Exit is how QEMU ended.
type Exit struct {
	Code     int            // exit status; −1 if killed by a signal
	Signal   syscall.Signal // 0 if it exited
	Shutdown string         // reason of the guest's shutdown: guest-shutdown, guest-reset, ...; "" if there was none
	Stderr   string         // the end of what QEMU itself said
}

// String says it in a few words.
func (e Exit) String() string {
	switch {
	case e.Signal != 0:
		return fmt.Sprintf("QEMU was killed by %s", unix.SignalName(e.Signal))
	case e.Code != 0:
		return fmt.Sprintf("QEMU ended with status %d", e.Code)
	case e.Shutdown == "guest-reset":
		return "the guest reset itself"
	case e.Shutdown == "guest-shutdown":
		return "the guest powered off"
	}
	return "QEMU ended with status 0"
}

// drainGrace bounds the wait for the console's end after QEMU's: something
// else may hold the pipe.
const drainGrace = 2 * time.Second

// Start runs QEMU. The host link and QMP are socket pairs, so they are
// connected before QEMU runs and end with it; Config.Link and Config.QMP are
// for people who paste the command, and only say here whether there is a link.
//
// QEMU is in a process group of its own and dies with the calling process,
// however that ends. ctx is for the start alone; use Kill to end the VM.
func Start(ctx context.Context, c Config, o Options) (*VM, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	binary, err := FindBinary(c.Binary)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	s := starter{vm: &VM{done: make(chan struct{}), events: make(chan Event, qmpEvents)}}
	vm, err := s.start(binary, c, o)
	if err != nil {
		s.closeAll()
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	return vm, nil
}

// starter holds what must be closed if the start goes wrong.
type starter struct {
	vm     *VM
	ours   []io.Closer // ends that the VM keeps
	theirs []*os.File  // ends that QEMU gets
}

func (s *starter) closeAll() {
	for _, c := range s.ours {
		c.Close()
	}
	s.closeTheirs()
}

func (s *starter) closeTheirs() {
	for _, f := range s.theirs {
		f.Close()
	}
	s.theirs = nil
}

func (s *starter) start(binary string, c Config, o Options) (*VM, error) {
	vm := s.vm
	var inherit []*os.File
	give := func(f *os.File) int {
		inherit = append(inherit, f)
		return 2 + len(inherit)
	}
	if c.Link != "" {
		conn, f, err := s.socketPair("link")
		if err != nil {
			return nil, err
		}
		vm.link, c.Link = conn, fmt.Sprintf("fd:%d", give(f))
	}
	monitor, f, err := s.socketPair("qmp")
	if err != nil {
		return nil, err
	}
	c.QMP = fmt.Sprintf("fd:%d", give(f))
	if o.Initrd != nil {
		c.Initrd = fmt.Sprintf("/proc/self/fd/%d", give(o.Initrd))
	}
	switch {
	case o.Vsock == nil:
	case c.VsockCID != 0:
		c.VsockFD = fmt.Sprintf("fd:%d", give(o.Vsock))
	default:
		c.Vsock = fmt.Sprintf("fd:%d", give(o.Vsock))
	}
	console, stdout, err := s.pipe()
	if err != nil {
		return nil, err
	}
	errs, stderr, err := s.pipe()
	if err != nil {
		return nil, err
	}
	vm.cmd = exec.Command(binary, c.Args()...)
	vm.cmd.Stdout, vm.cmd.Stderr, vm.cmd.ExtraFiles = stdout, stderr, inherit
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	vm.console = newDrain(o.Console)
	vm.stderr.limit = stderrTail
	started := make(chan error, 1)
	exited := make(chan error, 1)
	go vm.own(started, exited)
	if err := <-started; err != nil {
		vm.console.run(emptyReader{})
		return nil, err
	}
	s.closeTheirs()
	vm.qmp = NewQMP(monitor)
	go vm.supervise(console, errs, exited)
	return vm, nil
}

// own starts QEMU and stays on its thread until QEMU is gone: the parent death
// signal is sent when the thread that forked ends, not the process.
func (vm *VM) own(started, exited chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := vm.cmd.Start()
	started <- err
	if err == nil {
		exited <- vm.cmd.Wait()
	}
}

// supervise drains everything QEMU says and closes done when it is gone and
// all of it is in.
func (vm *VM) supervise(console, errs *os.File, exited <-chan error) {
	var readers sync.WaitGroup
	readers.Go(func() { vm.console.run(console) })
	readers.Go(func() { _, _ = io.Copy(&vm.stderr, errs) })
	var shutdown string
	readers.Go(func() { shutdown = vm.relay() })

	<-exited // the status is in ProcessState
	grace := time.AfterFunc(drainGrace, func() {
		console.Close()
		errs.Close()
		vm.qmp.Close()
	})
	readers.Wait()
	if grace.Stop() {
		console.Close()
		errs.Close()
		vm.qmp.Close()
	}
	exit := Exit{Code: vm.cmd.ProcessState.ExitCode(), Shutdown: shutdown, Stderr: string(vm.stderr.Bytes())}
	if ws, ok := vm.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Signal = ws.Signal()
	}
	vm.mu.Lock()
	vm.exit = exit
	vm.mu.Unlock()
	close(vm.events)
	close(vm.done)
}

// relay passes QEMU's events on and returns the reason of the guest's
// shutdown. Without a handshake there are no events, and QEMU's own end tells
// the rest.
func (vm *VM) relay() (shutdown string) {
	if err := vm.qmp.Handshake(context.Background()); err != nil {
		vm.qmp.Close()
	}
	for e := range vm.qmp.Events() {
		if e.Name == "SHUTDOWN" {
			shutdown = e.Reason
		}
		select {
		case vm.events <- e:
		default:
		}
	}
	return shutdown
}

// socketPair returns our end as a connection and QEMU's as a file.
func (s *starter) socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair for %s: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	s.theirs = append(s.theirs, theirs)
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair for %s: %w", name, err)
	}
	s.ours = append(s.ours, conn)
	return conn, theirs, nil
}

func (s *starter) pipe() (*os.File, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	s.ours, s.theirs = append(s.ours, r), append(s.theirs, w)
	return r, w, nil
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, io.EOF }

// PID returns QEMU's process id.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Link returns the host's end of the virtio-serial port, or nil if the machine
// has none. The caller closes it.
func (vm *VM) Link() net.Conn { return vm.link }

// Watch returns the console watch.
func (vm *VM) Watch() *ConsoleWatch { return vm.console.ConsoleWatch }

// ConsoleTail returns the end of the console, at most 64 KiB.
func (vm *VM) ConsoleTail() []byte { return vm.console.tail.Bytes() }

// ConsoleLost says how many bytes of the console the caller's writers did not
// take, together, and the first error of one that failed. It is final after
// Done.
func (vm *VM) ConsoleLost() (bytes int64, err error) {
	for _, s := range vm.console.sinks {
		n, serr := s.lost()
		bytes, err = bytes+n, firstError(err, serr)
	}
	return bytes, err
}

// Events delivers QEMU's events, and is closed when QEMU is gone.
func (vm *VM) Events() <-chan Event { return vm.events }

// Status asks QEMU for its run state.
func (vm *VM) Status(ctx context.Context) (string, error) { return vm.qmp.Status(ctx) }

// Quit asks QEMU to end in good order. Follow it with Kill.
func (vm *VM) Quit(ctx context.Context) error { return vm.qmp.Quit(ctx) }

// Done is closed when QEMU is gone and the console is complete.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Wait waits until QEMU is gone, or ctx is.
func (vm *VM) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-vm.done:
		return vm.Exit(), nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait for QEMU: %w", context.Cause(ctx))
	}
}

// Exit says how QEMU ended. It is meaningful after Done.
func (vm *VM) Exit() Exit {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.exit
}

// killWait bounds the end of a process that got SIGKILL; it is long only if
// the kernel is stuck in it.
const killWait = 10 * time.Second

// Kill ends QEMU at once, if it is still there, and waits until it is gone. It
// may be called several times.
func (vm *VM) Kill() error {
	select {
	case <-vm.done:
		return nil
	default:
	}
	// A script that runs QEMU has it in its process group.
	if vm.cmd.Process.Signal(syscall.Signal(0)) == nil {
		_ = unix.Kill(-vm.PID(), unix.SIGKILL)
	}
	_ = vm.cmd.Process.Kill() // both fail only where QEMU is gone already
	t := time.NewTimer(killWait)
	defer t.Stop()
	select {
	case <-vm.done:
		return nil
	case <-t.C:
		return fmt.Errorf("kill QEMU: process %d is still there after %v", vm.PID(), killWait)
	}
}
