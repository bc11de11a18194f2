//go:build !amd64.v2

package firstline

// level is the least CPU that this build runs on, behind the architecture; empty
// for any.
const level = ""
