package vsock

import "errors"

// The classes of error that a conversation ends with. Every error of this
// package that comes from what the peer did or left undone matches exactly one
// of them with errors.Is.
var (
	// ErrTorn: the stream ended inside a frame, or between the chunks of a
	// chunked message.
	ErrTorn = errors.New("stream ended inside a message")
	// ErrCorrupt: wrong magic, version or checksum, or a payload that is not
	// the message its type says.
	ErrCorrupt = errors.New("corrupt frame")
	// ErrTooLarge: a frame or a chunked message exceeds its limit.
	ErrTooLarge = errors.New("message too large")
	// ErrProtocol: a valid frame at a time or of a type that the protocol
	// forbids.
	ErrProtocol = errors.New("protocol violation")
	// ErrFlood: more events or report bytes than the host takes.
	ErrFlood = errors.New("guest floods the link")
	// ErrSilent: nothing arrived within the deadline.
	ErrSilent = errors.New("peer is silent")
	// ErrNoBye: the stream ended in good order, but without a bye.
	ErrNoBye = errors.New("stream ended without a bye")
	// ErrRefused: the host answered with a bye instead of what was asked for.
	ErrRefused = errors.New("host refused")
)
