package vsock

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPickCID(t *testing.T) {
	for _, tt := range []struct {
		name  string
		busy  int // CIDs that are in use before one is not
		err   error
		tries int
		want  error
	}{
		{"first", 0, nil, 1, nil},
		{"collisions", 10, nil, 11, nil},
		{"all in use", cidTries, nil, cidTries, unix.EADDRINUSE},
		{"no permission", 0, unix.EPERM, 1, unix.EPERM},
	} {
		tries, last := 0, uint32(0)
		cid, err := pickCID(func(cid uint32) error {
			if tries++; cid < firstCID || cid > lastCID {
				t.Errorf("%s: CID %d", tt.name, cid)
			}
			if last = cid; tries <= tt.busy {
				return unix.EADDRINUSE
			}
			return tt.err
		})
		if tries != tt.tries || !errors.Is(err, tt.want) || err == nil && cid != last {
			t.Errorf("%s: CID %d after %d tries: %v", tt.name, cid, tries, err)
		}
	}
}
