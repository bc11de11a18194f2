package bare

// Names of vdso(7) on arm64, which has no getcpu.
const (
	vdsoClockName = "__kernel_clock_gettime"
	vdsoCPUName   = ""
)
