//go:build amd64.v2 && !amd64.v3

package firstline

// level is the least CPU that this build runs on, behind the architecture.
const level = ".v2"
