package initramfs

import (
	"fmt"
	"path"

	"github.com/guestinit/guestinit/kernel"
)

// Support is what is known of a kernel's drivers for a feature.
type Support int

// The answers of Supports.
const (
	Unknown     Support = iota // the kernel came without modules: drivers are built in, or missing
	Supported                  // built in, or among the modules
	Unsupported                // neither
)

// Supports tells whether kernel k has the drivers that a feature needs. It looks
// for their names and reads no module.
func Supports(k *kernel.Kernel, feature string) (Support, error) {
	if k == nil || k.Modules == "" {
		return Unknown, nil
	}
	roots := features()[feature]
	if roots == nil {
		return Unknown, fmt.Errorf("feature %q is not known", feature)
	}
	index, err := openIndex(k.Modules)
	if err != nil {
		return Unknown, fmt.Errorf("read the modules of kernel %s: %w", path.Base(k.Modules), err)
	}
	for _, name := range roots {
		if _, builtin := index.builtin[name]; builtin {
			continue
		}
		_, ok, err := index.find(name)
		if err != nil {
			return Unknown, fmt.Errorf("read the modules of kernel %s: %w", path.Base(k.Modules), err)
		}
		if !ok {
			return Unsupported, nil
		}
	}
	return Supported, nil
}
