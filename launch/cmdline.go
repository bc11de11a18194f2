package launch

import (
	"fmt"
	"strings"
	"time"

	"github.com/guestinit/guestinit/guest/cmdline"
	"github.com/guestinit/guestinit/qemu"
)

// kernelLine is what the kernel command line is made of.
type kernelLine struct {
	link     string        // the value of cmdline.KeyLink
	deadline time.Duration // of the run in the guest; 0 for none
	user     string        // the user's words come last, so that they win
	spec     []byte        // JSON; empty for a guest that has none
	fallback string        // where the spec is if it does not fit
}

// build returns the command line, with the spec in it if the kernel keeps all
// of it, and whether it is.
func (k kernelLine) build() (line string, inline bool, err error) {
	if len(k.spec) > 0 {
		value, err := cmdline.EncodeSpec(k.spec)
		if err != nil {
			return "", false, err
		}
		if line := k.with(value); len(line) <= qemu.CommandLineMax {
			return line, true, nil
		}
		line = k.with(k.fallback)
	} else {
		line = k.with("")
	}
	if len(line) > qemu.CommandLineMax {
		return "", false, &Error{Class: Usage, Msg: fmt.Sprintf("append: the kernel command line would have %d bytes, the kernel keeps %d", len(line), qemu.CommandLineMax)}
	}
	return line, false, nil
}

func (k kernelLine) with(spec string) string {
	words := []string{qemu.BaseAppend, cmdline.KeyLink + "=" + k.link}
	if k.deadline > 0 {
		words = append(words, cmdline.KeyDeadline+"="+k.deadline.String())
	}
	if spec != "" {
		words = append(words, cmdline.KeySpec+"="+spec)
	}
	if k.user != "" {
		words = append(words, k.user)
	}
	return strings.Join(words, " ")
}

// guestDeadline is when the guest is to stop and report what it has, so that
// the report is here before the launcher's own timeout.
func guestDeadline(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return 0
	}
	margin := min(max(timeout/4, time.Second), 10*time.Second)
	return max(timeout-margin, time.Second)
}
