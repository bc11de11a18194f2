package bare

import "unsafe"

// tlsOffset is where the thread pointer of a task points, from its TCB: the g
// slot lies below it.
const tlsOffset = unsafe.Offsetof(TCB{}.tp)
