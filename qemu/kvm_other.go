//go:build !(linux && amd64)

package qemu

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// timeVCPU has no x86-64 vCPU to run on this architecture.
func timeVCPU(context.Context, string) (time.Duration, error) {
	return 0, fmt.Errorf("run x86-64 vCPU: the host is %s", runtime.GOARCH)
}
