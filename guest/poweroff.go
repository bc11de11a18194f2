package guest

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/vsock"
)

// syncWait bounds sync(2), which a file system of a host that is gone can hold.
const syncWait = 5 * time.Second

// farewell tells the host and the console how it ended.
func (b *boot) farewell(err error) vsock.Bye {
	bye := vsock.Bye{Status: status(err)}
	if err != nil {
		bye.Text = err.Error()
		b.con.printf("fatal: %s", bye.Text)
	}
	if b.link == nil {
		return bye
	}
	if err != nil {
		// Sent beside the bye for a host that follows the events.
		if err := b.link.Event(vsock.Event{Kind: vsock.EventFatal, Text: bye.Text, AtNs: int64(bootTime())}); err != nil {
			b.con.printf("tell the host: %v", err)
		}
	}
	if err := b.link.Bye(bye); err != nil {
		b.con.printf("tell the host: %v", err)
	}
	return bye
}

// powerOff ends the machine. It never returns.
func (b *boot) powerOff(bye vsock.Bye) {
	b.con.printf("done status=%d", bye.Status)
	b.con.flush()
	synced := make(chan struct{})
	go func() {
		b.sys.Sync()
		close(synced)
	}()
	t := time.NewTimer(syncWait)
	select {
	case <-synced:
	case <-t.C:
	}
	err := b.sys.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	// Without a way to power off, a restart ends the emulator as well when it
	// runs with -no-reboot, and so does the panic after PID 1 exits.
	err2 := b.sys.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	fmt.Fprintf(os.Stdout, "guestinit: power off: %v; restart: %v\n", err, err2)
	os.Exit(1)
}
