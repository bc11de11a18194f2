package scx

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestMain doubles as the programs that the tests start: each does what the
// kernel does to sysfs and to its log as well.
func TestMain(m *testing.M) {
	mode := os.Getenv("SCX_FAKE")
	if mode == "" {
		os.Exit(m.Run())
	}
	log, err := os.OpenFile(os.Getenv("SCX_KMSG"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
	os.Exit((&fake{dir: os.Getenv("SCX_SYSFS"), log: log}).run(mode))
}

type fake struct {
	dir string
	log *os.File
}

// put replaces a file at once, as readers look at any time.
func (f *fake) put(name, text string) {
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path+"~", []byte(text+"\n"), 0o644); err != nil {
		panic(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		panic(err)
	}
}

// kernel logs a line.
func (f *fake) kernel(text string) {
	fmt.Fprintf(f.log, "6,1,1,-;%s\n SUBSYSTEM=none\n", text)
}

func (f *fake) enable(name string) {
	if err := os.MkdirAll(filepath.Join(f.dir, "root"), 0o755); err != nil {
		panic(err)
	}
	f.put("root/ops", name)
	f.put("root/events", "SCX_EV_DISPATCH_KEEP_LAST 7\nSCX_EV_BYPASS_ACTIVATE 0")
	f.put("enable_seq", "5")
	f.put("switch_all", "1")
	f.put("state", stateEnabled)
	time.Sleep(100 * time.Millisecond)
}

func (f *fake) disable(why string) {
	f.put("state", "disabling")
	os.RemoveAll(filepath.Join(f.dir, "root"))
	f.put("nr_rejected", "3")
	if why != "" {
		f.kernel(`sched_ext: BPF scheduler "fake" disabled (` + why + ")")
	}
	f.put("state", stateDisabled)
}

func (f *fake) run(mode string) int {
	ints := make(chan os.Signal, 1)
	signal.Notify(ints, syscall.SIGINT)
	switch mode {
	case "normal":
		f.enable("fake")
		<-ints
		f.disable(reasonUnregistered)
	case "exit":
		f.enable("fake")
		f.disable(reasonUnregistered)
		fmt.Println("cannot go on\nEXIT: unregistered from user space")
		return 3
	case "stall":
		f.enable("fake")
		f.disable(reasonStall)
		f.kernel("sched_ext: fake: W[12] failed to run for 2.004s")
		f.kernel("   check_rq_for_timeouts+0x1/0x2")
		f.kernel("usb 1-1: something else")
		fmt.Println("DEBUG DUMP\n...\nEXIT: runnable task stall (W[12] failed to run for 2.004s)")
		return 1
	case "quit": // the kernel logs the message of an error alone
		f.enable("fake")
		f.disable("unregistered from BPF")
		fmt.Println("[INFO] EXIT: unregistered from BPF (no more)")
	case "silent": // no permission to read the log
		f.enable("fake")
		f.disable("")
		fmt.Println("EXIT: runtime error (invalid CPU -7)")
		return 1
	case "linger":
		f.enable("fake")
		f.disable("scx_bpf_error")
		f.kernel("sched_ext: fake: oh no")
		<-ints
	case "release":
		f.enable("fake")
		f.disable(reasonUnregistered)
		<-ints
	case "replaced":
		f.enable("fake")
		f.put("enable_seq", "6")
		<-ints
		f.disable("")
	case "refused":
		fmt.Println("libbpf: invalid program")
		return 1
	case "init": // ops.init() fails
		f.put("state", "enabling")
		f.kernel(`sched_ext: BPF scheduler "fake" disabled (runtime error)`)
		f.kernel("sched_ext: fake: ops.init() failed (-22)")
		f.put("state", stateDisabled)
		return 1
	case "never":
		<-ints
	}
	return 0
}

// newKernel is a kernel with sched_ext, and none of its schedulers enabled.
func newKernel(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "kmsg")
	if err := syscall.Mkfifo(log, 0o644); err != nil {
		t.Fatal(err)
	}
	// A writer that stays: without one a pipe is at its end.
	w, err := os.OpenFile(log, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	k := &fake{dir: dir}
	for name, text := range map[string]string{"state": stateDisabled, "enable_seq": "4", "nr_rejected": "1", "switch_all": "0"} {
		k.put(name, text)
	}
	t.Setenv("SCX_SYSFS", dir)
	t.Setenv("SCX_KMSG", log)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Path: exe, Args: []string{"-x"}, sysfs: dir, kmsg: log, enableTimeout: 10 * time.Second}
}
