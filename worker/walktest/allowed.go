package walktest

// allowedRuntime are the symbols of the Go runtime that code outside it may
// call, with the reason.
func allowedRuntime() map[string]string {
	return map[string]string{
		"runtime.memmove":                "assembly, touches only its arguments and CPU feature flags",
		"runtime.memclrNoHeapPointers":   "assembly, as memmove",
		"runtime.memequal":               "assembly, as memmove",
		"runtime.duffzero":               "assembly, writes zeros",
		"runtime.duffcopy":               "assembly, copies",
		"runtime.morestack":              "a full stack: faults on the zero g, and is reported as a stack overflow",
		"runtime.morestack_noctxt":       "as morestack",
		"runtime.panicBounds":            "a bounds check that failed: faults on the zero g, and is reported as a panic",
		"runtime.panicIndex":             "as panicBounds",
		"runtime.panicdivide":            "as panicBounds",
		"runtime.panicshift":             "as panicBounds",
		"runtime.panicunsafeslicelen":    "as panicBounds",
		"runtime.panicunsafeslicenilptr": "as panicBounds",
	}
}

// allowedIndirect are the functions that may call through a register, with what
// they call.
func allowedIndirect() map[string]string {
	return map[string]string{
		"github.com/guestinit/guestinit/internal/bare.callC":     "the vDSO",
		"github.com/guestinit/guestinit/internal/bare.cloneTask": "the first function of a new task, each of which is an entry point of the walk",
		"github.com/guestinit/guestinit/worker.(*Slab).run":      "a loop of Types, each of which is an entry point of the walk",
	}
}
