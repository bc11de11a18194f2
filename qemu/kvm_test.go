//go:build linux && amd64

package qemu

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func needKVM(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("%v; needs a host with KVM and access to it", err)
	}
	f.Close()
}

func TestTimeVCPU(t *testing.T) {
	needKVM(t)
	took, err := timeVCPU(t.Context(), "/dev/kvm")
	t.Logf("%v, %v", took, err)
	if err == nil && took <= 0 {
		t.Errorf("took %v without an error", took)
	}
}

// 4 billion rounds take a second and more on the fastest hardware, five times.
func TestVCPUThatDoesNotEndIsInterrupted(t *testing.T) {
	needKVM(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	took, err := timeRounds(ctx, "/dev/kvm", 1<<32-1)
	t.Logf("%v, %v", took, err)
	if err == nil {
		t.Error("no error")
	}
	if errors.Is(err, context.DeadlineExceeded) && took != 0 {
		t.Errorf("took %v with an error", took)
	}
}
