package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/guestinit/guestinit/launch"
)

// feed is where the events of a run go while it lasts.
type feed struct {
	events string // file of --events
	pumps  []*launch.Pump
	file   *os.File // nil for standard output or nothing
	failed bool     // the events could not be written, which is more than slow
}

func (f *feed) flags(fs *flag.FlagSet) {
	fs.StringVar(&f.events, "events", "", "write the run's events as JSON lines to `FILE` while it lasts, - for standard output\n(the table then goes to standard error)")
}

// open returns what takes the events. They never wait for whoever reads them.
func (f *feed) open(io streams) (show func(launch.Event), err error) {
	width := 0
	if isTerminal, columns := terminal(io.err); isTerminal {
		width = columns
	}
	screen := launch.NewPump(io.err)
	f.pumps = append(f.pumps, screen)
	show = launch.NewProgress(screen, width)
	if f.events == "" {
		return show, nil
	}
	out := io.out
	if f.events != "-" {
		if f.file, err = createFile(f.events); err != nil {
			return nil, fmt.Errorf("open --events: %w", err)
		}
		out = f.file
	}
	lines := launch.NewPump(out)
	f.pumps = append(f.pumps, lines)
	toScreen, toLog := show, launch.NewEventLog(lines)
	return func(e launch.Event) {
		toScreen(e)
		toLog(e)
	}, nil
}

// close sees the events off, and returns where the rest of the output goes.
func (f *feed) close(io streams) streams {
	var errs []error
	for i, p := range f.pumps {
		if err := p.Close(); i > 0 { // the screen is nobody's record
			errs = append(errs, err)
		}
	}
	if f.file != nil {
		errs = append(errs, f.file.Close())
	}
	for _, err := range errs {
		if err != nil {
			f.failed = f.failed || !errors.Is(err, launch.ErrSlow)
			fmt.Fprintf(io.err, "guestinit: write --events: %v\n", err)
		}
	}
	if f.events == "-" {
		io.out = io.err
	}
	return io
}

// status is the exit status of a run that came to status: events that were asked
// for and could not be written make it a failure.
func (f *feed) status(status int) int {
	if f.failed && status == launch.StatusPass {
		return int(launch.Setup)
	}
	return status
}

// check refuses two things on one standard output.
func (f *feed) check(o *output) error {
	if f.events == "-" && o.json == "-" {
		return errors.New("--events - and --json - both want standard output; give one of them a file")
	}
	return nil
}
