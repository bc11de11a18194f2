package scenario

import (
	"errors"
	"strings"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// admit checks what the pipeline and the table of work types say of every group.
func admit(s *spec.Spec) error {
	var errs []error
	for _, g := range s.Placed() {
		w := workload(s, unresolved([]spec.Group{*g.Group}), false)
		if g.WorkersPct != 0 { // as many as the work type makes work together
			w.Groups[0].Workers = groupSize(g.Group)
		}
		if err := w.Validate(); err != nil {
			errs = append(errs, moved(err, g.Path))
		}
	}
	return errors.Join(errs...)
}

// moved is the errors of groups[0] as those of the group at a path.
func moved(err error, path string) error {
	switch e := err.(type) {
	case *spec.Error:
		if rest, ok := strings.CutPrefix(e.Path, "groups[0]"); ok {
			return spec.At(path, spec.At(strings.TrimPrefix(rest, "."), errors.New(e.Msg)))
		}
	case interface{ Unwrap() []error }:
		var errs []error
		for _, one := range e.Unwrap() {
			errs = append(errs, moved(one, path))
		}
		return errors.Join(errs...)
	}
	return err
}

// groupSize is how many workers the work of a group makes work together; 1 where
// it is none.
func groupSize(g *spec.Group) int {
	work, err := worker.Parse(g.Work)
	if err != nil {
		return 1
	}
	return max(work.GroupSize(), 1)
}
