package bare

import _ "unsafe" // for linkname

// UsesCgo tells whether the C library is part of the program. Tasks cannot be born
// then: the place of g in the thread-local storage is another one.
func UsesCgo() bool { return iscgo }

// iscgo is on the runtime's list of names that are kept for others.
//
//go:linkname iscgo runtime.iscgo
var iscgo bool
