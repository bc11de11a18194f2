// Package guest is guestinit as PID 1 of a guest: it mounts what a test needs,
// loads the modules its image lists, finds the host, learns its workload, runs
// it through an injected function, sees the report off and powers the machine
// off, whatever happened on the way.
//
// # The course of a boot
//
// The first line on the console is "guestinit: start ...", the last one
// "guestinit: done status=N": N is the status of the bye that the host got. In
// between a step that fails ends the run when it is a required one, with its
// cause on the console and, over the link, as a fatal event and a bye; another
// one leaves a note for the report. When a step before the link fails, the link
// is opened all the same, to tell the host.
//
// # Files in the image
//
// /etc/guestinit/modules lists modules in load order, a line "FEATURE PATH"
// each. /etc/guestinit/spec.json is the spec of an image that brings its own.
// /etc/guestinit/complete is the last entry of an image: without it the image
// was truncated on its way. An image without /etc/guestinit is someone else's,
// and all of this is optional there.
//
// Start-up time is part of what users measure: the package has no package-level
// initialisation, and what it imports must have little. It may import vsock,
// report and spec, never spawn or scenario: those come in as functions.
package guest
