// Command mininit is a minimal Go program as /init: it says a line and powers
// off. The boot benchmark compares guestinit's start with its.
package main

import "golang.org/x/sys/unix"

func main() {
	unix.Write(1, []byte("first line\n"))
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
