package launch

import (
	"errors"
	"fmt"
	"io"

	"github.com/guestinit/guestinit/check"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/spec"
)

// collector decodes the report while it arrives. It takes every byte, also
// after the decoder has given up, so that a lying guest cannot stop the link.
type collector struct {
	keep    io.Writer // gets the bytes too; nil for none
	keepErr error
	pw      *io.PipeWriter
	done    chan struct{}

	rep *report.Report // after done
	err error
}

func newCollector(keep io.Writer, limits report.Limits) *collector {
	pr, pw := io.Pipe()
	c := &collector{keep: keep, pw: pw, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.rep, c.err = report.Decode(pr, limits)
		_, _ = io.Copy(io.Discard, pr) // the pipe's end is finish's to tell
	}()
	return c
}

// Write never fails.
func (c *collector) Write(p []byte) (int, error) {
	if c.keep != nil && c.keepErr == nil {
		if _, err := c.keep.Write(p); err != nil {
			c.keepErr = fmt.Errorf("keep report: %w", err)
		}
	}
	_, _ = c.pw.Write(p) // the read end is never closed
	return len(p), nil
}

// finish says that no more will come, and returns what could be decoded. The
// report is never nil.
func (c *collector) finish(whole bool) (*report.Report, error) {
	if whole {
		c.pw.Close()
	} else {
		c.pw.CloseWithError(errors.New("the guest stopped sending"))
	}
	<-c.done
	return c.rep, c.err
}

// reportLimits allows what a guest that runs s may send, and no more.
func reportLimits(s *spec.Spec, samples bool) report.Limits {
	l := report.DefaultLimits()
	l.KeepSamples = samples
	workers := s.Workers()
	if s.Elastic() { // the guest knows how many
		workers = spec.MaxWorkers
	}
	l.Workers, l.Groups = workers, len(s.Placed())
	l.Bytes = min(l.Bytes, 64<<20+uint64(workers)*(4<<20))
	return l
}

// groupNames are the names of a spec's groups.
func groupNames(s *spec.Spec) []string {
	var names []string
	for _, g := range check.GroupInfos(s) {
		names = append(names, g.Name)
	}
	return names
}
