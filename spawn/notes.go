package spawn

import (
	"fmt"

	"github.com/guestinit/guestinit/worker"
)

// note keeps a line for the report about a group.
func (a *arena) note(p *groupPlan, format string, args ...any) {
	a.notes = append(a.notes, p.label()+": "+fmt.Sprintf(format, args...))
}

// label names the group for people.
func (p *groupPlan) label() string {
	if p.group.Name != "" {
		return p.group.Name
	}
	return p.work.Type.Name
}

// Notes is what the reader of a report should know about how the work was done,
// one line each: the files behind I/O, and vectors narrower than asked for. It
// is complete once the workers were collected, and empty after Close.
func (h *Handle) Notes() []string {
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.arena == nil || h.closed.Load() {
		return nil
	}
	notes := append([]string(nil), h.arena.notes...)
	at := 0
	for i := range h.plans {
		p := &h.plans[i]
		slabs := h.arena.slabs[at : at+p.group.Workers]
		at += p.group.Workers
		if line := vectorNote(p, slabs); line != "" {
			notes = append(notes, p.label()+": "+line)
		}
	}
	if line := h.rescueNote(); line != "" {
		notes = append(notes, line)
	}
	return notes
}

// vectorNote says how wide the vectors of alu_hot and sequence were, and whether the spec
// asked for others.
func vectorNote(p *groupPlan, slabs []*worker.Slab) string {
	if params := p.work.Type.Params; len(params) == 0 || params[0].Name != "width" {
		return ""
	}
	for _, s := range slabs {
		if s.VectorBits == 0 {
			continue
		}
		width := p.work.Type.Params[0].Format(p.work.Values[0])
		if asked := worker.AskedBits(p.work.Values[0]); asked != 0 && asked != s.VectorBits {
			return fmt.Sprintf("width %s is not to be had here, ran %d bits", width, s.VectorBits)
		}
		return fmt.Sprintf("width %s ran %d bits", width, s.VectorBits)
	}
	return ""
}
