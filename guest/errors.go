package guest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/guestinit/guestinit/vsock"
)

// Error is an error that knows the status of the bye it leads to.
type Error struct {
	Status int // vsock.StatusSpec and its siblings
	Err    error
}

// Error returns the text of the error within.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error within.
func (e *Error) Unwrap() error { return e.Err }

// status finds the status that an error leads to.
func status(err error) int {
	var e *Error
	switch {
	case err == nil:
		return vsock.StatusDone
	case errors.As(err, &e):
		return e.Status
	case errors.Is(err, context.DeadlineExceeded):
		return vsock.StatusTimeout
	}
	return vsock.StatusSetup
}

// guard runs f and turns a panic into an error with its stack.
func guard(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Error{vsock.StatusCrash, fmt.Errorf("panic in %s: %v\n%s", what, p, debug.Stack())}
		}
	}()
	return f()
}
