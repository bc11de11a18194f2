package report

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// The samples of a worker's populations are items of their own behind the
// worker's: [population, typed array], a part of a reservoir each. The guest
// encodes them out of the workers' memory through one small buffer.

// sampleChunk is how many samples an item has at most: two items are less than
// flushEvery.
const sampleChunk = 16 << 10

// bare returns the worker without its samples, and those.
func (w *Worker) bare() (*Worker, [3]Samples) {
	var samples [3]Samples
	without := *w
	for i, p := range []**Latency{&without.WakeLatency, &without.IterationCost, &without.TimerLatency} {
		if l := *p; l != nil && len(l.Samples) > 0 {
			samples[i] = l.Samples
			short := *l
			short.Samples = nil
			*p = &short
		}
	}
	return &without, samples
}

// sampled tells whether the worker has samples.
func (w *Worker) sampled() bool {
	for _, l := range w.latencies() {
		if l.lat != nil && len(l.lat.Samples) > 0 {
			return true
		}
	}
	return false
}

// CopySamples gives the worker samples of its own, in place of those that share
// memory with the one that measured them.
func (w *Worker) CopySamples() {
	for _, l := range w.latencies() {
		if l.lat != nil {
			l.lat.Samples = slices.Clone(l.lat.Samples)
		}
	}
}

// samples sends the samples of one population of the worker before it. They
// are noise: to compress them costs more than to send them.
func (e *Encoder) samples(population int, s Samples) error {
	for len(s) > 0 {
		n := min(len(s), sampleChunk)
		e.chunk = appendChunk(e.chunk[:0], population, s[:n])
		if err := e.stored(kindSamples, e.chunk); err != nil {
			return err
		}
		s = s[n:]
	}
	return nil
}

// stored sends one [kind, body] that is not compressed.
func (e *Encoder) stored(kind int, body []byte) error {
	if e.err != nil {
		return e.err
	}
	e.head = appendHead(append(e.head[:0], majorArray|2, byte(kind)), majorBytes, uint64(len(body)))
	for _, b := range [][]byte{e.head, body} {
		if err := e.zw.stored(b); err != nil {
			e.err = fmt.Errorf("send report %s: %w", kindName(kind), err)
			return e.err
		}
	}
	return nil
}

// appendChunk appends the body of an item of samples.
func appendChunk(b []byte, population int, s Samples) []byte {
	b = append(b, majorArray|2, byte(population))
	from := len(b)
	b = appendHead(append(b, majorTag|24, tagUint32LE), majorBytes, uint64(4*len(s)))
	at := len(b)
	b = slices.Grow(b, 4*len(s))[:at+4*len(s)]
	if narrow(b[at:], s) <= math.MaxUint32 {
		return b
	}
	b = appendHead(append(b[:from], majorTag|24, tagUint64LE), majorBytes, uint64(8*len(s)))
	for _, v := range s {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// narrow writes values as 32-bit words and returns what is not less than any of
// them. It takes two at once: a guest has tens of millions, in an emulated CPU.
func narrow(to []byte, s Samples) (bound uint64) {
	for len(s) >= 4 && len(to) >= 16 {
		v, w, x, y := s[0], s[1], s[2], s[3]
		bound |= v | w | x | y
		binary.LittleEndian.PutUint64(to, v&math.MaxUint32|w<<32)
		binary.LittleEndian.PutUint64(to[8:], x&math.MaxUint32|y<<32)
		s, to = s[4:], to[16:]
	}
	for i, v := range s {
		bound |= v
		binary.LittleEndian.PutUint32(to[4*i:], uint32(v))
	}
	return bound
}

// samples takes an item of samples: they are the last worker's.
func (d *decoder) samples(body []byte) error {
	if len(d.rep.Workers) == 0 {
		return fmt.Errorf("%w: samples before the first worker", ErrCorrupt)
	}
	w := &d.rep.Workers[len(d.rep.Workers)-1]
	all := w.latencies()
	if len(body) < 2 || body[0] != majorArray|2 || int(body[1]) >= len(all) {
		return fmt.Errorf("%w: samples of no population", ErrCorrupt)
	}
	l := all[body[1]]
	if l.lat == nil {
		return fmt.Errorf("%w: samples of %s, of which worker %d has none", ErrCorrupt, l.name, len(d.rep.Workers)-1)
	}
	words, size, err := typedArray(body[2:])
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, l.name, err)
	}
	if d.sampled[body[1]] += len(words) / size; d.sampled[body[1]] > d.limits.Samples {
		return fmt.Errorf("%w: %s has %d samples, at most %d", ErrLimit, l.name, d.sampled[body[1]], d.limits.Samples)
	}
	if d.limits.KeepSamples {
		l.lat.Samples = appendWords(l.lat.Samples, words, size)
	}
	return nil
}
