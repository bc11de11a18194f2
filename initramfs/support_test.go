package initramfs

import (
	"testing"

	"github.com/guestinit/guestinit/kernel"
)

func TestSupports(t *testing.T) {
	gone := map[string][]byte{"kernel/vsock/vmw_vsock_virtio_transport.ko": nil}
	builtin := map[string][]byte{
		"kernel/vsock/vmw_vsock_virtio_transport.ko": nil,
		"modules.builtin": []byte("kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko\n"),
	}
	for _, tt := range []struct {
		name    string
		kernel  *kernel.Kernel
		feature string
		want    Support
	}{
		{"modules", moduleTree(t, nil), "vsock", Supported},
		{"no driver", moduleTree(t, gone), "vsock", Unsupported},
		{"the other link", moduleTree(t, gone), "serial", Supported},
		{"built in", moduleTree(t, builtin), "vsock", Supported},
		{"no modules", &kernel.Kernel{}, "vsock", Unknown},
		{"no kernel", nil, "vsock", Unknown},
	} {
		if got, err := Supports(tt.kernel, tt.feature); got != tt.want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
	if _, err := Supports(moduleTree(t, nil), "telepathy"); err == nil {
		t.Error("an unknown feature is no error")
	}
}
