package spec

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that reads and writes as Go writes durations:
// "1.5s", "250us", "1h30m".
type Duration time.Duration

// ParseDuration reads a duration in Go's syntax. A number without a unit is
// refused, except 0.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%s is no duration; write a number with a unit, such as 10ms, 2.5s or 1m30s", quote(s))
	}
	return Duration(d), nil
}

// String is d in Go's syntax.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes d in Go's syntax.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads d in Go's syntax.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = v
	}
	return err
}
