package launch

import (
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// A run gives back its descriptors, goroutines and processes, whether it ended
// well or not.
func TestNothingLeaks(t *testing.T) {
	count := func() (files, goroutines int) {
		names, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(names), runtime.NumGoroutine()
	}
	for _, name := range []string{"pass", "garbage-after-hello"} {
		t.Run(name, func(t *testing.T) {
			o := fakeOptions(t, name)
			once := func() { _, _ = Run(t.Context(), o) } // TestEnds looks at the results
			once()                                        // what the runtime opens once is not a leak
			files, goroutines := count()
			once()
			for limit := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
				f, g := count()
				if f <= files && g <= goroutines && len(children(t)) == 0 {
					return
				}
				if time.Now().After(limit) {
					buf := make([]byte, 1<<16)
					t.Fatalf("%d files and %d goroutines before, %d and %d after, children %v\n%s",
						files, goroutines, f, g, children(t), buf[:runtime.Stack(buf, true)])
				}
			}
		})
	}
}
