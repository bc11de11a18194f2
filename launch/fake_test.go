package launch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/vsock"
)

// The test binary plays QEMU when this variable names a fake: what the fake
// does stands in fakes.
const fakeEnv = "GUESTINIT_TEST_FAKE_QEMU"

// fakeQEMU is what a fake has: the host link and the monitor as QEMU would have
// them, and the guest's serial console on standard output.
type fakeQEMU struct {
	args []string
	link net.Conn
	qmp  net.Conn
}

func playQEMU(name string) {
	if slices.Contains(os.Args, "--version") {
		version := "7.2.0"
		if strings.HasPrefix(name, "new-") {
			version = "10.0.2"
		}
		fmt.Printf("QEMU emulator version %s (fake)\n", version)
		os.Exit(0)
	}
	line := strings.Join(os.Args[1:], " ")
	if name == "no-vhost-user" && strings.Contains(line, "vhost-user-vsock-pci") {
		fmt.Fprintln(os.Stderr, "qemu: -device vhost-user-vsock-pci,chardev=vsock0: 'vhost-user-vsock-pci' is not a valid device model name")
		os.Exit(1)
	}
	f := &fakeQEMU{args: os.Args[1:], link: inherited(line, "link0"), qmp: inherited(line, "qmp0")}
	play, ok := fakes()[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no fake named", name)
		os.Exit(99)
	}
	play(f)
	os.Exit(0)
}

// inherited is the connection behind the socket chardev id.
func inherited(line, id string) net.Conn {
	m := regexp.MustCompile(`socket,id=` + id + `,fd=(\d+)`).FindStringSubmatch(line)
	if m == nil {
		fmt.Fprintln(os.Stderr, "no chardev", id, "in", line)
		os.Exit(98)
	}
	fd, _ := strconv.Atoi(m[1])
	conn, err := net.FileConn(os.NewFile(uintptr(fd), id))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(97)
	}
	return conn
}

// hang is a guest that does no more; the launcher is to end it.
func hang() {
	time.Sleep(time.Hour)
}

// monitor answers QMP commands with status, after an event if it is not "".
func (f *fakeQEMU) monitor(event, status string) {
	fmt.Fprintln(f.qmp, `{"QMP": {"version": {}, "capabilities": []}}`)
	lines := bufio.NewScanner(f.qmp)
	for lines.Scan() {
		var m struct {
			Execute string `json:"execute"`
		}
		_ = json.Unmarshal(lines.Bytes(), &m)
		switch m.Execute {
		case "query-status":
			fmt.Fprintf(f.qmp, `{"return": {"status": %q}}`+"\n", status)
		default:
			fmt.Fprintln(f.qmp, `{"return": {}}`)
			if event != "" {
				fmt.Fprintf(f.qmp, `{"event": %q}`+"\n", event)
			}
		}
	}
}

// guest says hello.
func (f *fakeQEMU) guest() *vsock.Guest {
	fmt.Println("guestinit: start fake")
	g := vsock.NewGuest(f.link)
	mustDo(g.Hello(vsock.Hello{Version: "fake", KernelRelease: "6.66", Machine: "x86_64", BootMs: map[string]float64{"init": 7}}))
	return g
}

func mustDo(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		os.Exit(96)
	}
}

// header, workers and trailer make a report of n workers of group 0; without a
// trailer it is torn.
func send(w io.Writer, n int, trailer bool) {
	e, err := report.NewEncoder(w)
	mustDo(err)
	run := report.Run{KernelRelease: "6.66", Link: "serial", CPUs: 2, DurationMs: 100}
	mustDo(e.Header(run))
	for i := range n {
		mustDo(e.Worker(&report.Worker{TID: 100 + i, Index: i, WorkType: "spin_wait", Completed: true, Iterations: 10, WallNs: 1e8, CPUsUsed: "0"}))
	}
	if trailer {
		mustDo(e.Trailer(report.Trailer{WorkerCount: n, Run: run}))
		mustDo(e.Close())
	} else {
		mustDo(e.Flush())
	}
}

// whole is a run without a flaw.
func (f *fakeQEMU) whole() {
	g := f.guest()
	w := g.ReportWriter()
	send(w, 2, true)
	mustDo(w.Close())
	mustDo(g.Bye(vsock.Bye{}))
	fmt.Println("guestinit: done status=0")
}

func fakes() map[string]func(*fakeQEMU) {
	return map[string]func(*fakeQEMU){
		"pass":          func(f *fakeQEMU) { f.whole() },
		"no-vhost-user": func(f *fakeQEMU) { f.whole() },
		"exit-1": func(*fakeQEMU) {
			fmt.Fprintln(os.Stderr, "qemu: -accel fake: no such accelerator")
			os.Exit(1)
		},
		"aborts": func(*fakeQEMU) {
			fmt.Fprintln(os.Stderr, "qemu: error: failed to set MSR 0x10a")
			// Not from here: the Go runtime catches the signal.
			mustDo(syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -ABRT $$"}, os.Environ()))
		},
		"mute": func(*fakeQEMU) { hang() },
		"mute-after-init": func(*fakeQEMU) {
			fmt.Println("guestinit: start fake")
			fmt.Println("[    3.1] INFO: task init:1 blocked for more than 120 seconds.")
			hang()
		},
		"mute-after-hello": func(f *fakeQEMU) {
			f.guest()
			hang()
		},
		"garbage": func(f *fakeQEMU) {
			for i := byte(0); ; i++ {
				if _, err := f.link.Write(slices.Repeat([]byte{i * 37}, 1000)); err != nil {
					hang()
				}
			}
		},
		"garbage-after-hello": func(f *fakeQEMU) {
			f.guest()
			fmt.Fprint(f.link, strings.Repeat("not a frame ", 100))
			hang()
		},
		"second-hello": func(f *fakeQEMU) {
			f.guest()
			f.guest()
			hang()
		},
		"no-bye": func(f *fakeQEMU) {
			w := f.guest().ReportWriter()
			send(w, 2, true)
			mustDo(w.Close())
		},
		"torn": func(f *fakeQEMU) {
			f.guest()
			var part bytes.Buffer
			send(&part, 1, false)
			mustDo(vsock.NewWriter(f.link).WriteFrame(vsock.TypeReport, vsock.FlagMust|vsock.FlagMore, part.Bytes()))
		},
		"torn-and-done": func(f *fakeQEMU) {
			g := f.guest()
			w := g.ReportWriter()
			send(w, 1, false)
			mustDo(w.Close())
			mustDo(g.Bye(vsock.Bye{}))
		},
		"nonsense-report": func(f *fakeQEMU) {
			g := f.guest()
			w := g.ReportWriter()
			fmt.Fprint(w, strings.Repeat("this is not zstd", 1<<16))
			mustDo(w.Close())
			mustDo(g.Bye(vsock.Bye{}))
		},
		"too-many-workers": func(f *fakeQEMU) {
			g := f.guest()
			w := g.ReportWriter()
			send(w, 5000, true)
			mustDo(w.Close())
			mustDo(g.Bye(vsock.Bye{}))
		},
		"done-without-report": func(f *fakeQEMU) {
			mustDo(f.guest().Bye(vsock.Bye{}))
		},
		"refuses-spec": func(f *fakeQEMU) {
			mustDo(f.guest().Bye(vsock.Bye{Status: vsock.StatusSpec, Text: "spec: groups[0].work: \x1b[31munknown"}))
		},
		"timed-out": func(f *fakeQEMU) {
			g := f.guest()
			w := g.ReportWriter()
			send(w, 2, true)
			mustDo(w.Close())
			mustDo(g.Bye(vsock.Bye{Status: vsock.StatusTimeout, Text: "run: deadline exceeded"}))
		},
		"panic-and-stay": func(f *fakeQEMU) {
			f.guest()
			fmt.Println("panic: runtime error: invalid memory address or nil pointer dereference")
			fmt.Println("[    2.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200")
			hang()
		},
		"oops-and-pass": func(f *fakeQEMU) {
			fmt.Println("[    1.5] BUG: kernel NULL pointer dereference, address: 0000000000000008")
			f.whole()
		},
		"stays-after-bye": func(f *fakeQEMU) {
			f.whole()
			hang()
		},
		"says-escapes": func(f *fakeQEMU) {
			g := f.guest()
			mustDo(g.Event(vsock.Event{Kind: vsock.EventLog, Text: "red \x1b[31malert\x07\r\nnext"}))
			mustDo(g.Event(vsock.Event{Kind: vsock.EventPhase, Text: "main"}))
			mustDo(g.Event(vsock.Event{Kind: vsock.EventProgress, Groups: []vsock.GroupProgress{{Index: 0, Alive: 2, Iterations: 42}}}))
			w := g.ReportWriter()
			send(w, 2, true)
			mustDo(w.Close())
			mustDo(g.Bye(vsock.Bye{}))
		},
		"floods-console": func(f *fakeQEMU) {
			line := strings.Repeat("y", 1023) + "\n"
			for range 8 << 10 {
				fmt.Print(line)
			}
			f.whole()
		},
		"new-stalls-multi": func(f *fakeQEMU) {
			if slices.Contains(f.args, "tcg,thread=multi") {
				hang()
			}
			f.whole()
		},
		"kvm-breaks": func(f *fakeQEMU) {
			if slices.Contains(f.args, "kvm") {
				f.monitor("STOP", "internal-error")
				hang()
			}
			f.whole()
		},
		"echoes-spec": func(f *fakeQEMU) {
			i := slices.Index(f.args, "-append")
			fmt.Println("guestinit: start fake")
			g := vsock.NewGuest(f.link)
			fromLink := strings.Contains(f.args[i+1], "guestinit.spec=link")
			mustDo(g.Hello(vsock.Hello{NeedSpec: fromLink}))
			if fromLink {
				data, err := g.ReceiveSpec(1 << 20)
				mustDo(err)
				fmt.Printf("spec of %d bytes\n", len(data))
			}
			w := g.ReportWriter()
			send(w, 2, true)
			mustDo(w.Close())
			mustDo(g.Bye(vsock.Bye{}))
		},
	}
}
