package qemu

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// Golden files hold the expected findings, one "KIND LINE" each, then "---",
// then the console as captured.
func TestConsoleWatchGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/console/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, log, ok := strings.Cut(string(data), "---\n")
			if !ok {
				t.Fatal("no --- line")
			}
			got := summary([]byte(log), len(log))
			for _, chunk := range []int{1, 7, 4096} {
				if again := summary([]byte(log), chunk); again != got {
					t.Errorf("in chunks of %d: %s", chunk, again)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got+"---\n"+log), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func summary(log []byte, chunk int) string {
	w := NewConsoleWatch()
	for len(log) > 0 {
		n := min(chunk, len(log))
		w.Write(log[:n])
		log = log[n:]
	}
	w.Close()
	var b strings.Builder
	for _, f := range w.Findings() {
		fmt.Fprintf(&b, "%s %s\n", f.Kind, f.Line)
	}
	return b.String()
}

func TestConsoleWatchLines(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Kind
	}{
		{"[    1.234567] Kernel panic - not syncing: Fatal exception", Panic},
		{"[    1.234567][    T1] Kernel panic - not syncing: sysrq", Panic},
		{"[    1.234567] [    T1] Oops: 0000 [#1] PREEMPT SMP", Oops},
		{"\x1b[0;31mguestinit: start 1.0\x1b[0m\r", InitStarted},
		{"\x1b[2J\x1b[H\x1bc[    0.5] Run /init as init process", RunInit},
		{"[  242.710308] INFO: task ip:6024 blocked for more than 120 seconds.", HungTask},
		{"[ 6580.173598] watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [WorkerPool/7703:7703]", SoftLockup},
		{"[ 2412.634282] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", RCUStall},
		{"[ 2412.634282] rcu: INFO: rcu_sched self-detected stall on CPU", RCUStall},
		{"[   21.5] watchdog: Watchdog detected hard LOCKUP on cpu 1", HardLockup},
		{"[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000008", Oops},
		{"[    3.1] Out of memory: Killed process 1 (init) total-vm:100kB", OutOfMemory},
		{"panic: runtime error: index out of range [3] with length 3", ProgramPanic},
		{"fatal error: all goroutines are asleep - deadlock!", ProgramPanic},
		{"my test prints BUG: like this", ""},
		{"guestinit: log: Kernel panic - not syncing", ""},
		{"[notatime] Oops: 1", ""},
		{"[    1.0] Linux version 6.12", ""},
		{"[", ""},
		{"\x1b[", ""},
		{"\x1b", ""},
		{"WARNING: the coffee is cold", ""},
		{"[  2.0] WARNING: kernel/sched/core.c:42 at foo+0x1/0x2", Warning},
	} {
		w := NewConsoleWatch()
		fmt.Fprintln(w, tt.line)
		var got Kind
		if f := w.Findings(); len(f) > 0 {
			got = f[0].Kind
		}
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestConsoleWatchIsBounded(t *testing.T) {
	w := NewConsoleWatch()
	for range 2 * maxFindings {
		fmt.Fprintln(w, "BUG: again")
	}
	w.Write(bytes.Repeat([]byte("x"), 1<<20))
	if n := len(w.Findings()); n != maxFindings {
		t.Errorf("%d findings, want %d", n, maxFindings)
	}
	if n := cap(w.line); n > 4*maxLine {
		t.Errorf("a line of %d bytes is kept", n)
	}
	if _, ok := w.FirstByte(); !ok {
		t.Error("no first byte")
	}
}

// The order of chunks must not matter, and no line may hold control bytes.
func FuzzConsoleWatch(f *testing.F) {
	f.Add([]byte("[    1.0] Kernel panic - not syncing: x\r\n"), 3)
	f.Add([]byte("\x1b[31mBUG: soft\x1b[0m\nOops: 1\n\xff\xfe\n[ 1.0] [ T9] Run /init as init process\n"), 1)
	f.Add([]byte("\x1b[12;\n\x1b"), 2)
	f.Fuzz(func(t *testing.T, log []byte, chunk int) {
		chunk = min(max(chunk, 1), len(log)+1)
		whole, pieces := summary(log, len(log)+1), summary(log, chunk)
		if whole != pieces {
			t.Fatalf("whole %q, in chunks of %d %q", whole, chunk, pieces)
		}
		for line := range strings.SplitSeq(whole, "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Fatalf("control character in %q", line)
			}
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add("QEMU emulator version 7.2.22 (Debian)")
	f.Add("version 9")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVersion(text)
		if err != nil {
			return
		}
		again, err := ParseVersion("QEMU emulator version " + v.String())
		if err != nil || again != v {
			t.Fatalf("%q gave %v, which gives %v, %v", text, v, again, err)
		}
	})
}
