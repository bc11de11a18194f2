package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
)

// dataWriter is standard output. It keeps the first error for the end: most of
// what prints has nobody to tell it to.
type dataWriter struct {
	w  io.Writer
	mu sync.Mutex

	err error // guarded by mu
}

// Write is io.Writer's.
func (d *dataWriter) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.err == nil {
			d.err = err
		}
	}
	return n, err
}

func (d *dataWriter) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// output is where a report goes.
type output struct {
	json    string
	file    *os.File // of json, nil where it is empty or standard output
	samples bool
	lenient bool // an inconclusive verdict is a success
}

func (o *output) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.json, "json", "", "write the report as JSON to `FILE`, - for standard output")
	fs.BoolVar(&o.samples, "samples", false, "keep raw samples, and put them and the histograms into the JSON report")
	fs.BoolVar(&o.lenient, "allow-inconclusive", false, "exit 0 where checks could not be judged and none failed")
}

// open opens the file of --json, before a run that would be lost if it could not
// be written. It stays empty if the run ends without a report.
func (o *output) open() (err error) {
	if o.json == "" || o.json == "-" {
		return nil
	}
	if o.file, err = createFile(o.json); err != nil {
		return fmt.Errorf("open --json: %w", err)
	}
	return nil
}

// createFile creates or empties a file. O_NONBLOCK is for named pipes: opening
// one that nobody reads is an error then, and not a wait without end.
func createFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK, 0o644)
}

// write shows a report: JSON where it was asked for, the table on standard
// output unless JSON goes there.
func (o *output) write(r *report.Report, io streams) error {
	if o.json == "-" {
		return report.WriteJSON(io.out, r, o.samples)
	}
	_, width := terminal(io.out)
	if err := report.WriteTable(io.out, r, width); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if o.file == nil {
		return nil
	}
	return writeFile(o.file, func(w *bufio.Writer) error { return report.WriteJSON(w, r, o.samples) })
}

// writeFile writes to a file through a buffer and closes it; every error of it is
// reported.
func writeFile(f *os.File, write func(w *bufio.Writer) error) error {
	w := bufio.NewWriter(f)
	err := write(w)
	if err == nil {
		err = w.Flush()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// finish shows the report, if there is one, then the error, if there is one, and
// returns the exit status.
func (o *output) finish(r *report.Report, err error, io streams) int {
	status := launch.ExitStatus(err, r)
	if status == launch.StatusInconclusive && o.lenient {
		status = launch.StatusPass
	}
	if r != nil {
		if werr := o.write(r, io); werr != nil {
			fail(io, launch.Setup, werr)
			if status == launch.StatusPass {
				status = int(launch.Setup)
			}
		}
	}
	if err != nil {
		printError(io.err, err)
	}
	return status
}

// printError prints an error and, of a run's, what helps to find its cause.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "guestinit: %v\n", err)
	var le *launch.Error
	if errors.As(err, &le) {
		fmt.Fprint(w, le.Details())
	}
}
