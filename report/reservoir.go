package report

import (
	"fmt"
	"slices"
)

// The samples of a worker's populations are items of their own behind the
// worker's: [population, typed array], a part of a reservoir each. The guest
// writes them out of the workers' memory.

// sampleChunk is how many samples an item has at most: a quarter of a full
// reservoir, and one stored block.
const sampleChunk = 25_000

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
// leave as they are: they are noise, and to compress them costs more than to send
// them.
func (e *Encoder) samples(population int, s Samples) error {
	for len(s) > 0 {
		n := min(len(s), sampleChunk)
		e.chunk = appendChunkHead(e.chunk[:0], population, n)
		e.head = appendHead(append(e.head[:0], majorArray|2, kindSamples), majorBytes, uint64(len(e.chunk)+sampleSize*n))
		e.head = append(e.head, e.chunk...)
		for _, b := range [][]byte{e.head, s[:n].bytes()} {
			if err := e.zw.stored(b); err != nil {
				e.err = fmt.Errorf("send report %s: %w", kindName(kindSamples), err)
				return e.err
			}
		}
		s = s[n:]
	}
	return nil
}

// appendChunkHead appends what stands before the n words of an item of samples.
func appendChunkHead(b []byte, population, n int) []byte {
	return appendArrayHead(append(b, majorArray|2, byte(population)), n)
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
	words, err := typedArray(body[2:])
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, l.name, err)
	}
	if d.sampled[body[1]] += len(words) / sampleSize; d.sampled[body[1]] > d.limits.Samples {
		return fmt.Errorf("%w: %s has %d samples, at most %d", ErrLimit, l.name, d.sampled[body[1]], d.limits.Samples)
	}
	if d.limits.KeepSamples {
		l.lat.Samples = appendWords(l.lat.Samples, words)
	}
	return nil
}
