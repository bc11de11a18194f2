package report

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// The classes of what can be wrong with a report's stream. An error of Decode
// matches exactly one of them with errors.Is.
var (
	ErrTorn    = errors.New("report is torn")         // ended, or could not be read on, before its trailer
	ErrCorrupt = errors.New("report is corrupt")      // says what cannot be
	ErrLimit   = errors.New("report exceeds a limit") // larger than Limits allow
)

// Limits bounds what Decode accepts. A zero field means its default.
type Limits struct {
	Bytes       uint64 // decompressed stream; default 4 GiB
	Item        int    // bytes of one item, so of one worker; default 20 MiB
	Workers     int    // default 1,000,000
	Groups      int    // group_index is below it; default 1024
	Samples     int    // per latency; default 100,000
	Elements    int    // of any other list or map, at least 16; default 4096
	Text        int    // bytes of any text; default 64 KiB
	Spec        int    // bytes of run.spec; default 16 MiB
	KeepSamples bool   // without it, samples are checked and thrown away
}

// DefaultLimits returns the limits of a launcher that keeps no samples.
func DefaultLimits() Limits {
	return Limits{
		Bytes:    4 << 30,
		Item:     20 << 20,
		Workers:  1_000_000,
		Groups:   1024,
		Samples:  100_000,
		Elements: 4096,
		Text:     64 << 10,
		Spec:     16 << 20,
	}
}

// withDefaults returns l with its zero fields filled in.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.Bytes == 0 {
		l.Bytes = d.Bytes
	}
	for _, f := range []struct{ have, want *int }{
		{&l.Item, &d.Item}, {&l.Workers, &d.Workers}, {&l.Groups, &d.Groups}, {&l.Samples, &d.Samples},
		{&l.Elements, &d.Elements}, {&l.Text, &d.Text}, {&l.Spec, &d.Spec},
	} {
		if *f.have == 0 {
			*f.have = *f.want
		}
	}
	return l
}

// maxWindow is the largest zstd window that a stream may ask the reader for.
const maxWindow = 8 << 20

// Decode reads one report to the end of r. The report is never nil: on an error
// it holds the header and the workers that came complete, and its Failures say
// that it is incomplete, so that Judge fails it. The error matches ErrTorn,
// ErrCorrupt or ErrLimit. Groups and Verdict are left to Aggregate and Judge.
func Decode(r io.Reader, limits Limits) (*Report, error) {
	d := &decoder{limits: limits.withDefaults(), rep: &Report{SchemaVersion: SchemaVersion}}
	err := d.decode(r)
	if err != nil {
		d.rep.Failures = append(d.rep.Failures, fmt.Sprintf("report is incomplete, %d workers could be saved: %v", len(d.rep.Workers), err))
	}
	return d.rep, err
}

// decoder is the state of one Decode.
type decoder struct {
	limits Limits
	mode   cbor.DecMode
	src    sourceReader
	br     *bufio.Reader
	left   uint64 // of Limits.Bytes
	body   []byte
	rep    *Report

	sampled [3]int // samples of the last worker's populations
}

// sourceReader remembers how the compressed stream ended, to tell a stream that
// broke off from one that lies.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func (d *decoder) decode(r io.Reader) error {
	var err error
	d.mode, err = cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxArrayElements: max(d.limits.Elements, 16),
		MaxMapPairs:      max(d.limits.Elements, 16),
		MaxNestedLevels:  8,
		NaN:              cbor.NaNDecodeForbidden,
		Inf:              cbor.InfDecodeForbidden,
		UTF8:             cbor.UTF8DecodeInvalid,
		IndefLength:      cbor.IndefLengthForbidden,
	}.DecMode()
	if err != nil {
		return fmt.Errorf("set up report decoder: %w", err)
	}
	d.src.r = r
	zr, err := zstd.NewReader(&d.src,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(d.limits.Bytes),
		zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return d.classify("open", err)
	}
	defer zr.Close()
	d.br = bufio.NewReaderSize(zr, 64<<10)
	d.left = d.limits.Bytes
	return d.items()
}

// items reads header, workers and trailer, and that nothing follows.
func (d *decoder) items() error {
	if err := d.header(); err != nil {
		return err
	}
	for {
		kind, body, err := d.next()
		if err != nil {
			return err
		}
		switch kind {
		case kindWorker:
			if err := d.worker(body); err != nil {
				return err
			}
		case kindSamples:
			if err := d.samples(body); err != nil {
				return err
			}
		case kindTrailer:
			return d.trailer(body)
		case kindHeader:
			return fmt.Errorf("%w: second header after %d workers", ErrCorrupt, len(d.rep.Workers))
		}
	}
}

func (d *decoder) header() error {
	kind, body, err := d.next()
	if err != nil {
		return err
	}
	var h header
	if kind != kindHeader {
		return fmt.Errorf("%w: starts with a %s", ErrCorrupt, kindName(kind))
	}
	if err := d.unmarshal(kindHeader, body, &h); err != nil {
		return err
	}
	if h.SchemaVersion != SchemaVersion {
		return fmt.Errorf("%w: schema version %d, this guestinit reads %d", ErrCorrupt, h.SchemaVersion, SchemaVersion)
	}
	if err := d.checkRun(&h.Run); err != nil {
		return err
	}
	d.rep.Run = h.Run
	return nil
}

func (d *decoder) worker(body []byte) error {
	if len(d.rep.Workers) >= d.limits.Workers {
		return fmt.Errorf("%w: more than %d workers", ErrLimit, d.limits.Workers)
	}
	var w Worker
	if err := d.unmarshal(kindWorker, body, &w); err != nil {
		return err
	}
	if err := d.checkWorker(&w); err != nil {
		return fmt.Errorf("%w (worker %d of the stream)", err, len(d.rep.Workers))
	}
	d.rep.Workers = append(d.rep.Workers, w)
	for i, l := range w.latencies() {
		if d.sampled[i] = 0; l.lat != nil {
			d.sampled[i] = len(l.lat.Samples)
		}
	}
	return nil
}

func (d *decoder) trailer(body []byte) error {
	var t Trailer
	if err := d.unmarshal(kindTrailer, body, &t); err != nil {
		return err
	}
	if err := errors.Join(d.checkRun(&t.Run), d.checkTexts("notes", t.Notes), d.checkTexts("failures", t.Failures)); err != nil {
		return err
	}
	if t.WorkerCount != len(d.rep.Workers) {
		return fmt.Errorf("%w: trailer counts %d workers, %d came", ErrCorrupt, t.WorkerCount, len(d.rep.Workers))
	}
	d.rep.Run, d.rep.Notes, d.rep.Failures = t.Run, t.Notes, t.Failures
	// Reading on verifies the checksum of the stream, and that nothing is hidden behind it.
	switch _, err := d.br.ReadByte(); err {
	case nil:
		return fmt.Errorf("%w: data after the trailer", ErrCorrupt)
	case io.EOF:
		return nil
	default:
		return d.classify("end", err)
	}
}

// next reads one item. body is valid until the next call.
func (d *decoder) next() (kind int, body []byte, err error) {
	var head [2 + 9]byte
	if err := d.read(head[:3]); err != nil {
		return 0, nil, err
	}
	kind = int(head[1])
	size := headSize(head[2])
	if head[0] != majorArray|2 || kind > 23 || size == 0 {
		return 0, nil, fmt.Errorf("%w: no item starts with % x", ErrCorrupt, head[:3])
	}
	if err := d.read(head[3 : 2+size]); err != nil {
		return 0, nil, err
	}
	n, used := parseHead(head[2:2+size], majorBytes)
	if used == 0 {
		return 0, nil, fmt.Errorf("%w: %s is not a byte string", ErrCorrupt, kindName(kind))
	}
	if n > uint64(d.limits.Item) {
		return 0, nil, fmt.Errorf("%w: %s of %d bytes, at most %d", ErrLimit, kindName(kind), n, d.limits.Item)
	}
	d.body, err = d.readBody(d.body[:0], int(n))
	return kind, d.body, err
}

// readBody appends n bytes to b. It grows b by what came, not by what was claimed.
func (d *decoder) readBody(b []byte, n int) ([]byte, error) {
	const step = 64 << 10
	for n > 0 {
		k := min(n, step)
		at := len(b)
		b = append(b, make([]byte, k)...)
		if err := d.read(b[at:]); err != nil {
			return b, err
		}
		n -= k
	}
	return b, nil
}

// read fills b and counts it against the limit of the stream.
func (d *decoder) read(b []byte) error {
	if uint64(len(b)) > d.left {
		return fmt.Errorf("%w: more than %d bytes decompressed", ErrLimit, d.limits.Bytes)
	}
	d.left -= uint64(len(b))
	if _, err := io.ReadFull(d.br, b); err != nil {
		return d.classify("read", err)
	}
	return nil
}

// classify wraps an error of the zstd reader with its class.
func (d *decoder) classify(op string, err error) error {
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: %s: %w", ErrLimit, op, err)
	case d.src.err != nil && d.src.err != io.EOF:
		return fmt.Errorf("%w: %s: %w", ErrTorn, op, d.src.err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s: stream ends before its trailer", ErrTorn, op)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, op, err)
}

// unmarshal decodes the body of one item.
func (d *decoder) unmarshal(kind int, body []byte, v any) error {
	err := d.mode.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	class := ErrCorrupt
	var elements *cbor.MaxArrayElementsError
	var pairs *cbor.MaxMapPairsError
	if errors.As(err, &elements) || errors.As(err, &pairs) || errors.Is(err, errManyBuckets) {
		class = ErrLimit
	}
	return fmt.Errorf("%w: %s: %w", class, kindName(kind), err)
}

// checkRun checks what the guest says of the run.
func (d *decoder) checkRun(r *Run) error {
	if len(r.Spec) > d.limits.Spec {
		return fmt.Errorf("%w: run.spec of %d bytes, at most %d", ErrLimit, len(r.Spec), d.limits.Spec)
	}
	if len(r.Spec) > 0 && !json.Valid(r.Spec) {
		return fmt.Errorf("%w: run.spec is not JSON", ErrCorrupt)
	}
	if r.DurationMs < 0 || r.CollectMs < 0 || r.CPUs < 0 || r.NUMANodes < 0 || r.BootAttempts < 0 || r.StealPct < 0 || r.StealPct > 100 {
		return fmt.Errorf("%w: run has a figure out of range", ErrCorrupt)
	}
	err := d.checkText("run",
		&r.Name, &r.Version, &r.KernelRelease, &r.Machine, &r.KernelCmdline, &r.Accelerator,
		&r.QEMUVersion, &r.Link, &r.Clocksource, &r.Spawner, &r.CloneMode)
	if err != nil {
		return err
	}
	if err := checkKeys(d, "run.boot_ms", r.BootMs); err != nil {
		return err
	}
	if err := d.checkScheduler(r.Scheduler); err != nil {
		return err
	}
	if err := d.checkPrograms(r.Programs); err != nil {
		return err
	}
	return errors.Join(d.checkRunPhases(r.Phases), r.Topology.check())
}

// check checks what a guest says of its CPUs.
func (t *Topology) check() error {
	if t == nil {
		return nil
	}
	lists := slices.Concat(t.LLCs, t.Cores)
	for _, n := range t.Nodes {
		if n.ID < 0 || n.MemoryMiB < 0 {
			return fmt.Errorf("%w: run.topology has a negative figure", ErrCorrupt)
		}
		lists = append(lists, n.CPUs)
	}
	for _, list := range lists {
		if err := new(cpuSet).add(list); err != nil {
			return fmt.Errorf("%w: run.topology: %w", ErrCorrupt, err)
		}
	}
	return nil
}

// checkRunPhases checks the phases that a guest says its run had.
func (d *decoder) checkRunPhases(phases []Phase) error {
	for i := range phases {
		p := &phases[i]
		if i > 0 && p.Epoch <= phases[i-1].Epoch || p.StartNs > p.EndNs {
			return fmt.Errorf("%w: run.phases[%d] is out of order", ErrCorrupt, i)
		}
		if err := d.checkText("run.phases", &p.Name); err != nil {
			return err
		}
		for name, lists := range map[string]map[string]string{"cpusets": p.Cpusets, "allowed": p.Allowed} {
			if err := checkKeys(d, "run.phases."+name, lists); err != nil {
				return err
			}
			for _, list := range lists {
				if err := new(cpuSet).add(list); err != nil {
					return fmt.Errorf("%w: run.phases[%d].%s: %w", ErrCorrupt, i, name, err)
				}
			}
		}
	}
	return nil
}
