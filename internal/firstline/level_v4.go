//go:build amd64.v4

package firstline

// level is the least CPU that this build runs on, behind the architecture.
const level = ".v4"
