// Package vsock is the host link: a framed protocol over any byte stream that
// joins a guest and its host, and both ends of the conversation on it. The
// stream is a virtio-serial port or a vsock connection; the protocol does not
// know which.
//
// Dial and Listen make vsock connections in a guest, and on a host whose kernel
// has the device (vhost-vsock). Where it has not, package vsock/vhostuser is
// the device.
//
// The conversation, G the guest and H the host:
//
//	G→H hello          who I am, and whether I need a spec
//	H→G spec           only when hello asked for it, in chunks
//	G→H event          any number, at any time after hello
//	G→H report         the report's bytes in chunks; the last one lacks FlagMore
//	G→H bye            how it ended; only this means "done"
//	H→G bye            the host has all of it: the guest may power off
//	H→G beat           every few seconds after hello: the host is there
//
// A host that refuses answers with bye at any time. A frame of a type that the
// receiver does not know is skipped, unless FlagMust is set: then it ends the
// conversation with ErrProtocol.
//
// The package imports nothing else of guestinit and treats every byte that
// arrives as untrusted: sizes are limited before memory
// is taken, and each way to be wrong is an error class of its own.
package vsock
