package bare

// tlsOffset is where the thread pointer of a task points, from its TCB: g has a
// register of its own, so the thread pointer is the TCB.
const tlsOffset = 0
