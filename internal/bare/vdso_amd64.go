package bare

// Names of vdso(7) on x86-64.
const (
	vdsoClockName = "__vdso_clock_gettime"
	vdsoCPUName   = "__vdso_getcpu"
)
