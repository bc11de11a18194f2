package vhostuser

import (
	"errors"
	"fmt"
	"syscall"
)

// state is where a connection stands.
type state uint8

const (
	stateAsking  state = iota // we asked for it; no answer yet
	stateOffered              // the guest asked for it; we have not answered
	stateOpen
	stateClosing // we are done in both directions and wait for the guest's reset
	stateDone    // over; a last reset may be due
)

// due are the packets that a connection wants to send, beside data.
type due uint8

const (
	dueReset due = 1 << iota
	dueRequest
	dueResponse
	dueShutdown
	dueCreditRequest
	dueCreditUpdate
)

// event is what a packet changed for the users of a connection.
type event uint8

const (
	eventOpen   event = 1 << iota // the guest took the connection
	eventData                     // there are bytes to take in
	eventCredit                   // there may be room for more of ours
	eventEnd                      // the guest ended one direction or both
)

// errViolation is why a connection ended if the guest broke the protocol on it.
var errViolation = errors.New("guest broke the vsock protocol")

// stream is the state of one connection (virtio 1.2, section 5.10.6): what the
// packets did to it and what it has to send. It moves no bytes, has no lock and
// knows no ring. Counters of bytes wrap, as the protocol's do.
type stream struct {
	state state
	due   due
	err   error // why it is done; nil after an orderly end

	localShut, peerShut uint32 // directions that are over

	bufAlloc uint32 // the guest may send so many bytes ahead of fwdCnt
	fwdCnt   uint32 // bytes that our user took
	told     uint32 // fwdCnt in the last packet we sent
	received uint32

	peerAlloc, peerFwd uint32 // the same of the guest
	sent               uint32
	starving           bool // we asked for credit and got none yet
}

// credit is how many bytes the guest has room for: what it says, at most. None
// if it took back credit.
func (s *stream) credit() uint32 {
	if underway := s.sent - s.peerFwd; underway < s.peerAlloc {
		return s.peerAlloc - underway
	}
	return 0
}

// writable tells whether the state allows our user to send.
func (s *stream) writable() bool {
	return s.state == stateOpen && s.localShut&shutSend == 0 && s.peerShut&shutReceive == 0
}

// fail ends the connection and tells the guest.
func (s *stream) fail(err error) event {
	s.state, s.due, s.err = stateDone, dueReset, err
	return eventEnd
}

// end ends the connection without a word.
func (s *stream) end(err error) event {
	s.state, s.due, s.err = stateDone, 0, err
	return eventEnd
}

func (s *stream) violation(what string, h *header) event {
	return s.fail(fmt.Errorf("%w: %s (operation %d, %d bytes)", errViolation, what, h.op, h.length))
}

// receive takes a packet from the guest. After eventData the caller takes in
// the packet's h.length bytes.
func (s *stream) receive(h *header) event {
	if s.state == stateDone {
		return 0
	}
	if h.op == opReset {
		return s.reset()
	}
	s.peerAlloc, s.peerFwd = h.bufAlloc, h.fwdCnt
	if h.op != opData && h.length != 0 {
		return s.violation("bytes in a packet that has none", h)
	}
	switch s.state {
	case stateAsking:
		// An answer to a question that was not sent yet is none.
		if h.op != opResponse || s.due&dueRequest != 0 {
			return s.violation("no answer to a connection request", h)
		}
		s.state = stateOpen
		return eventOpen | eventCredit
	case stateOffered:
		if h.op == opShutdown {
			return s.shutdown(h)
		}
		if h.op == opCreditUpdate || h.op == opCreditRequest {
			return 0
		}
		return s.violation("not connected yet", h)
	}
	return s.receiveOpen(h)
}

// receiveOpen takes a packet on a connection that is open or closing.
func (s *stream) receiveOpen(h *header) (ev event) {
	if s.credit() > 0 {
		s.starving = false
		ev = eventCredit
	}
	switch h.op {
	case opData:
		return ev | s.data(h)
	case opCreditUpdate:
		return ev
	case opCreditRequest:
		s.due |= dueCreditUpdate
		return ev
	case opShutdown:
		return ev | s.shutdown(h)
	}
	return s.violation("unexpected operation", h)
}

// data accounts for bytes of the guest.
func (s *stream) data(h *header) event {
	switch {
	case s.state == stateClosing:
		return 0 // sent before the guest knew
	case s.peerShut&shutSend != 0:
		return s.violation("data after the end", h)
	case h.length > s.bufAlloc-(s.received-s.fwdCnt):
		return s.violation("more data than credit", h)
	case h.length == 0:
		return 0
	}
	s.received += h.length
	if s.localShut&shutReceive != 0 {
		s.take(h.length) // sent before the guest knew
		return 0
	}
	return eventData
}

// shutdown notes that the guest ended directions, which it cannot take back.
func (s *stream) shutdown(h *header) event {
	s.peerShut |= h.flags & shutBoth
	if s.peerShut == shutBoth {
		return s.fail(nil) // the reset confirms an orderly end
	}
	return eventEnd
}

// reset ends the connection because the guest has.
func (s *stream) reset() event {
	switch {
	case s.state == stateAsking:
		return s.end(syscall.ECONNREFUSED)
	case s.state == stateClosing:
		return s.end(nil)
	}
	return s.end(syscall.ECONNRESET)
}

// accept answers the guest's request.
func (s *stream) accept() {
	if s.state == stateOffered {
		s.state, s.due = stateOpen, s.due|dueResponse
	}
}

// close ends directions of ours; both begin the end of the connection.
func (s *stream) close(directions uint32) {
	before := s.localShut
	s.localShut |= directions
	switch {
	case s.state == stateDone || s.state == stateClosing:
	case s.state == stateAsking && s.due&dueRequest != 0:
		s.end(nil) // the guest never heard of it
	case s.state == stateAsking || s.state == stateOffered:
		s.fail(nil)
	case s.localShut != before:
		s.due |= dueShutdown
		if s.localShut == shutBoth {
			s.state = stateClosing
		}
	}
}

// take notes that our user took n bytes, and has the guest told when it is
// worth a packet: long before the guest runs dry, not for every byte. Kernels of
// 2026 send no further ahead than their own buffer has room, whatever ours has.
func (s *stream) take(n uint32) {
	s.fwdCnt += n
	if s.fwdCnt-s.told >= min(s.bufAlloc, s.peerAlloc)/4 && s.state == stateOpen && s.peerShut&shutSend == 0 {
		s.due |= dueCreditUpdate
	}
}

// wants tells whether next would return a packet, with have bytes of our user
// waiting.
func (s *stream) wants(have int) bool {
	if have > 0 && s.writable() {
		if s.credit() > 0 {
			return true
		}
		if !s.starving {
			s.starving = true
			s.due |= dueCreditRequest
		}
	}
	return s.due != 0
}

// next returns the next packet to send, of which n bytes are our user's: at
// most have and at most room.
func (s *stream) next(have, room int) (h header, n int, ok bool) {
	h = header{typ: typeStream, bufAlloc: s.bufAlloc, fwdCnt: s.fwdCnt}
	send := func(d due, op uint16) bool {
		h.op = op
		ok = s.due&d != 0
		s.due &^= d
		return ok
	}
	switch {
	case send(dueReset, opReset), send(dueRequest, opRequest), send(dueResponse, opResponse):
	case have > 0 && s.writable() && s.credit() > 0 && room > 0:
		n = min(have, room, int(s.credit()))
		h.op, h.length, ok = opData, uint32(n), true
		s.sent += uint32(n)
	case send(dueShutdown, opShutdown):
		h.flags = s.localShut
	case send(dueCreditRequest, opCreditRequest), send(dueCreditUpdate, opCreditUpdate):
	}
	if ok {
		s.told = s.fwdCnt // every packet tells
		s.due &^= dueCreditUpdate
	}
	return h, n, ok
}
