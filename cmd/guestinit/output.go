package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
)

// output is where a report goes.
type output struct {
	json    string
	samples bool
	lenient bool // an inconclusive verdict is a success
}

func (o *output) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.json, "json", "", "write the report as JSON to `FILE`, - for standard output")
	fs.BoolVar(&o.samples, "samples", false, "keep raw samples, and put them and the histograms into the JSON report")
	fs.BoolVar(&o.lenient, "allow-inconclusive", false, "exit 0 where checks could not be judged and none failed")
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
	if o.json == "" {
		return nil
	}
	return writeFile(o.json, func(w *bufio.Writer) error { return report.WriteJSON(w, r, o.samples) })
}

// writeFile writes a file through a buffer; every error of it is reported.
func writeFile(name string, write func(w *bufio.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
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
