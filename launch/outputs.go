package launch

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/qemu"
)

// outputs are where an attempt's console and raw report go.
type outputs struct {
	console []io.Writer
	report  io.Writer // nil for nowhere
	files   []*os.File
}

func (r *runner) openOutputs() (*outputs, error) {
	o := &outputs{}
	if r.o.Console != nil {
		o.console = append(o.console, r.o.Console)
	}
	if r.o.ConsoleFile != "" {
		f, err := o.open(r.o.ConsoleFile, r.res.Attempts > 1)
		if err != nil {
			o.close()
			return nil, &Error{Class: Setup, Msg: "open --console", Err: err}
		}
		o.console = append(o.console, f)
	}
	if r.res.Dir == "" {
		return o, nil
	}
	console, err := o.open(filepath.Join(r.res.Dir, keepConsole), true)
	if err != nil {
		o.close()
		return nil, &Error{Class: Setup, Msg: "keep the console", Err: err}
	}
	o.console = append(o.console, console)
	report, err := o.open(filepath.Join(r.res.Dir, keepReport), false)
	if err != nil {
		o.close()
		return nil, &Error{Class: Setup, Msg: "keep the report", Err: err}
	}
	o.report = report
	return o, nil
}

// open creates a file. O_NONBLOCK is for named pipes: opening one that nobody
// reads is an error then, and not a wait without end.
func (o *outputs) open(path string, add bool) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | unix.O_NONBLOCK
	if add {
		flags |= os.O_APPEND
	} else {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, err
	}
	o.files = append(o.files, f)
	return f, nil
}

func (o *outputs) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// lost says what did not reach the files, for the report's notes.
func (o *outputs) lost(vm *qemu.VM, c *collector) []string {
	var notes []string
	if n, err := vm.ConsoleLost(); err != nil {
		notes = append(notes, fmt.Sprintf("%d bytes of the console are lost: %v", n, err))
	} else if n > 0 {
		notes = append(notes, fmt.Sprintf("%d bytes of the console are lost: whoever reads it is too slow", n))
	}
	if c.keepErr != nil {
		notes = append(notes, c.keepErr.Error())
	}
	return notes
}
