package kernel

import (
	"os"
	"testing"

	"github.com/guestinit/guestinit/internal/guesttest"
)

// TestMain fails the package when its tests leave file descriptors open.
func TestMain(m *testing.M) {
	os.Exit(guesttest.CloseFiles(m))
}
