package scx

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// kmsg is the kernel's log, a record per read.
const kmsg = "/dev/kmsg"

// Bounds of the kernel's log.
const (
	maxRecord = 8192 // bytes of a record of /dev/kmsg
	maxLines  = 60   // that are kept
)

// kernelLog follows what the kernel's log says of sched_ext.
type kernelLog struct {
	file *os.File      // nil: it could not be opened
	end  chan struct{} // closed when nothing follows it any more
	news chan struct{} // has an element when a line came

	mu    sync.Mutex
	lines []string
}

// followLog follows the log from now on. Without permission, or where the file
// is missing, it follows nothing: the states in sysfs remain.
func followLog(path string) *kernelLog {
	l := &kernelLog{end: make(chan struct{}), news: make(chan struct{}, 1)}
	// Non-blocking: Go's poller waits, and Close ends the wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		close(l.end)
		return l
	}
	_, _ = f.Seek(0, io.SeekEnd) // a pipe cannot, and need not
	l.file = f
	go l.follow()
	return l
}

func (l *kernelLog) follow() {
	defer close(l.end)
	buf := make([]byte, maxRecord)
	for {
		n, err := l.file.Read(buf)
		switch {
		case errors.Is(err, unix.EPIPE): // records were overwritten before they were read
			continue
		case err != nil:
			return
		}
		for line := range strings.Lines(string(buf[:n])) {
			if l.add(parseLine(line)) {
				l.wake()
			}
		}
	}
}

func (l *kernelLog) wake() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// parseLine takes the text out of the first line of a record of /dev/kmsg,
// "PRIORITY,SEQUENCE,TIME,FLAGS;TEXT". The lines " KEY=VALUE" after it have none.
func parseLine(line string) string {
	if strings.HasPrefix(line, " ") {
		return ""
	}
	_, text, _ := strings.Cut(strings.TrimRight(line, "\n"), ";")
	return text
}

// prefix begins what the kernel says of sched_ext.
const prefix = "sched_ext: "

// add keeps a line if it is about sched_ext, or of the backtrace below such a
// line.
func (l *kernelLog) add(line string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	about := strings.HasPrefix(line, prefix)
	if !about && (!strings.HasPrefix(line, " ") || len(l.lines) == 0) || len(l.lines) >= maxLines {
		return false
	}
	l.lines = append(l.lines, line)
	return about
}

// all are the lines that came until now.
func (l *kernelLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

func (l *kernelLog) close() {
	if l.file != nil {
		l.file.Close()
		<-l.end
	}
}
