package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// encode sends r the way a guest does.
func encode(t testing.TB, r *Report) []byte {
	t.Helper()
	var buf bytes.Buffer
	e, err := NewEncoder(&buf)
	if err != nil {
		t.Fatal(err)
	}
	early := r.Run
	early.DurationMs = 0
	if err := e.Header(early); err != nil {
		t.Fatal(err)
	}
	for i := range r.Workers {
		if err := e.Worker(&r.Workers[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Trailer(Trailer{Run: r.Run, Notes: r.Notes}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func infos(r *Report) []GroupInfo {
	var list []GroupInfo
	for _, g := range r.Groups {
		list = append(list, GroupInfo{Name: g.Name, WorkType: g.WorkType, Cgroup: g.Cgroup, Step: g.Step, Workers: g.Workers})
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	for name, want := range map[string]*Report{"pass": sampleReport(), "fail": failedReport()} {
		got, err := Decode(bytes.NewReader(encode(t, want)), Limits{KeepSamples: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got.Aggregate(infos(want))
		got.Judge()
		if !reflect.DeepEqual(got, want) {
			g, _ := json.MarshalIndent(got, "", " ")
			w, _ := json.MarshalIndent(want, "", " ")
			t.Errorf("%s: got\n%s\nwant\n%s", name, g, w)
		}
	}
}

func TestDecodeDropsSamples(t *testing.T) {
	got, err := Decode(bytes.NewReader(encode(t, sampleReport())), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range got.Workers {
		for _, l := range w.latencies() {
			if l.lat != nil && (l.lat.Samples != nil || l.lat.Count == 0) {
				t.Errorf("worker %d: %s keeps %d samples of %d", w.TID, l.name, len(l.lat.Samples), l.lat.Count)
			}
		}
	}
}

func TestEncoderOrder(t *testing.T) {
	new := func() *Encoder {
		e, err := NewEncoder(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if err := new().Worker(&Worker{}); err == nil {
		t.Error("worker before header is accepted")
	}
	if err := new().Trailer(Trailer{}); err == nil {
		t.Error("trailer before header is accepted")
	}
	e := new()
	if err := errors.Join(e.Header(Run{}), e.Worker(&Worker{}), e.Worker(&Worker{}), e.Trailer(Trailer{})); err != nil {
		t.Error(err)
	}
	if e.Worker(&Worker{}) == nil || e.Header(Run{}) == nil || e.Trailer(Trailer{}) == nil {
		t.Error("an item after the trailer is accepted")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if e.Close() == nil || e.Flush() == nil {
		t.Error("a closed encoder works on")
	}
}

func TestEncoderKeepsFirstError(t *testing.T) {
	e, err := NewEncoder(failingWriter{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Header(Run{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("header: %v", err)
	}
	if err := e.Worker(&Worker{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("worker: %v", err)
	}
	if err := e.Close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("close: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A stream cut anywhere gives an error of class torn, and what came complete.
func TestDecodeTorn(t *testing.T) {
	r := sampleReport()
	for _, w := range r.Workers {
		for _, l := range w.latencies() {
			if l.lat != nil {
				l.lat.Samples = nil
			}
		}
	}
	full := encode(t, r)
	for n := range full {
		got, err := Decode(bytes.NewReader(full[:n]), Limits{})
		if !errors.Is(err, ErrTorn) || classes(err) != 1 {
			t.Fatalf("cut at %d of %d: %v", n, len(full), err)
		}
		got.Aggregate(nil)
		if got.Judge(); got.Verdict != Fail {
			t.Fatalf("cut at %d: verdict %s", n, got.Verdict)
		}
	}
}

func classes(err error) int {
	n := 0
	for _, class := range []error{ErrTorn, ErrCorrupt, ErrLimit} {
		if errors.Is(err, class) {
			n++
		}
	}
	return n
}

func TestDecodeSavesWhatWasFlushed(t *testing.T) {
	var buf bytes.Buffer
	e, _ := NewEncoder(&buf)
	r := sampleReport()
	_ = e.Header(r.Run)
	headerOnly := bytes.Clone(buf.Bytes())
	for i := range 3 {
		_ = e.Worker(&r.Workers[i])
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Decode(bytes.NewReader(headerOnly), Limits{})
	if !errors.Is(err, ErrTorn) || got.Run.KernelRelease != r.Run.KernelRelease {
		t.Errorf("header only: release %q, %v", got.Run.KernelRelease, err)
	}
	got, err = Decode(io.MultiReader(&buf, iotest.ErrReader(io.ErrNoProgress)), Limits{})
	if !errors.Is(err, ErrTorn) || !errors.Is(err, io.ErrNoProgress) || len(got.Workers) != 3 {
		t.Errorf("three workers: %d saved, %v", len(got.Workers), err)
	}
}

// stream packs raw items the way the encoder does.
func stream(t testing.TB, items ...[]byte) []byte {
	t.Helper()
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return zw.EncodeAll(bytes.Join(items, nil), nil)
}

func rawItem(t testing.TB, kind int, v any) []byte {
	t.Helper()
	body, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return append(appendHead([]byte{majorArray | 2, byte(kind)}, majorBytes, uint64(len(body))), body...)
}

type m = map[string]any

func TestDecodeLies(t *testing.T) {
	head := rawItem(t, kindHeader, header{SchemaVersion: SchemaVersion})
	good := rawItem(t, kindWorker, Worker{Completed: true})
	end := func(n int) []byte { return rawItem(t, kindTrailer, Trailer{WorkerCount: n}) }
	worker := func(v m) [][]byte {
		v["completed"] = true
		return [][]byte{head, good, rawItem(t, kindWorker, v), end(2)}
	}
	wake := func(v m) [][]byte { return worker(m{"wake_latency_ns": v}) }
	long := strings.Repeat("x", 100)
	tests := []struct {
		name  string
		items [][]byte
		class error
		saved int
	}{
		{"nothing", nil, ErrTorn, 0},
		{"no header", [][]byte{good, end(1)}, ErrCorrupt, 0},
		{"schema of the future", [][]byte{rawItem(t, kindHeader, header{SchemaVersion: 99})}, ErrCorrupt, 0},
		{"two headers", [][]byte{head, good, head, end(1)}, ErrCorrupt, 1},
		{"no trailer", [][]byte{head, good}, ErrTorn, 1},
		{"trailer lies", [][]byte{head, good, end(7)}, ErrCorrupt, 1},
		{"data after the trailer", [][]byte{head, good, end(1), good}, ErrCorrupt, 1},
		{"not an item", [][]byte{head, good, []byte("hello")}, ErrCorrupt, 1},
		{"item of text", [][]byte{head, good, {0x82, 2, 0x60}}, ErrCorrupt, 1},
		{"indefinite length", [][]byte{head, good, {0x82, 2, 0x5f, 0xff}}, ErrCorrupt, 1},
		{"body is no CBOR", [][]byte{head, good, {0x82, 2, 0x41, 0xff}}, ErrCorrupt, 1},
		{"body of another type", [][]byte{head, good, rawItem(t, kindWorker, []int{1})}, ErrCorrupt, 1},
		{"claims 2^60 bytes", [][]byte{head, good, {0x82, 2, 0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0}}, ErrLimit, 1},
		{"claims more than comes", [][]byte{head, good, {0x82, 2, 0x5a, 0, 0x0f, 0, 0, 1, 2}}, ErrTorn, 1},
		{"too many workers", [][]byte{head, good, good, good, good, good}, ErrLimit, 4},
		{"group index", worker(m{"group_index": 5000}), ErrLimit, 1},
		{"negative group index", worker(m{"group_index": -1}), ErrCorrupt, 1},
		{"duplicate key", [][]byte{head, good, rawItem(t, kindWorker, cbor.RawMessage("\xa2\x63tid\x01\x63tid\x02"))}, ErrCorrupt, 1},
		{"long text", worker(m{"work_type": long}), ErrLimit, 1},
		{"long soft error", worker(m{"soft_errors": m{"nice": long}}), ErrLimit, 1},
		{"long map key", worker(m{"soft_errors": m{long: ""}}), ErrLimit, 1},
		{"no CPU list", worker(m{"cpus_used": "0-99999999"}), ErrCorrupt, 1},
		{"not a number", wake(m{"mean": math.NaN()}), ErrCorrupt, 1},
		{"empty bucket", wake(m{"buckets": Buckets{{1, 1, 0}}}), ErrCorrupt, 1},
		{"no width", wake(m{"buckets": Buckets{{1, 0, 1}}}), ErrCorrupt, 1},
		{"overlap", wake(m{"buckets": Buckets{{1, 4, 1}, {4, 4, 1}}}), ErrCorrupt, 1},
		{"descending", wake(m{"buckets": Buckets{{9, 1, 1}, {1, 1, 1}}}), ErrCorrupt, 1},
		{"edge overflows", wake(m{"buckets": Buckets{{math.MaxUint64, 2, 1}}}), ErrCorrupt, 1},
		{"count overflows", wake(m{"buckets": Buckets{{1, 1, math.MaxUint64}, {2, 1, 2}}}), ErrCorrupt, 1},
		{"p50 above max", wake(m{"count": 1, "p50": 9, "max": 3}), ErrCorrupt, 1},
		{"too many buckets", wake(m{"buckets": make(Buckets, maxBuckets+1)}), ErrLimit, 1},
		{"half a bucket", wake(m{"buckets": []byte{1, 1}}), ErrCorrupt, 1},
		{"endless number", wake(m{"buckets": bytes.Repeat([]byte{0xff}, 30)}), ErrCorrupt, 1},
		{"buckets are no bytes", wake(m{"buckets": [][]uint64{{1, 1, 1}}}), ErrCorrupt, 1},
		{"too many samples", wake(m{"samples": Samples{1, 2, 3, 4, 5, 6}}), ErrLimit, 1},
		{"samples are no array", wake(m{"samples": "text"}), ErrCorrupt, 1},
		{"samples of half words", wake(m{"samples": cbor.Tag{Number: tagUint32LE, Content: []byte{1, 2, 3, 4, 5, 6}}}), ErrCorrupt, 1},
		{"spec is no JSON", [][]byte{rawItem(t, kindHeader, m{"schema_version": 1, "run": m{"spec": []byte("{")}})}, ErrCorrupt, 0},
		{"long spec", [][]byte{rawItem(t, kindHeader, m{"schema_version": 1, "run": m{"spec": []byte(`"` + long + `"`)}})}, ErrLimit, 0},
		{"negative duration", [][]byte{rawItem(t, kindHeader, m{"schema_version": 1, "run": m{"duration_ms": -1.5}})}, ErrCorrupt, 0},
	}
	limits := Limits{Workers: 4, Text: 64, Spec: 64, Samples: 5, Elements: 32}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode(bytes.NewReader(stream(t, tt.items...)), limits)
			if !errors.Is(err, tt.class) || classes(err) != 1 {
				t.Errorf("error %v, want class %q", err, tt.class)
			}
			if len(got.Workers) != tt.saved {
				t.Errorf("%d workers saved, want %d", len(got.Workers), tt.saved)
			}
			if got.Judge(); got.Verdict != Fail {
				t.Errorf("verdict %s", got.Verdict)
			}
		})
	}
}

func TestDecodeSkipsUnknownKinds(t *testing.T) {
	data := stream(t,
		rawItem(t, kindHeader, m{"schema_version": 1, "run": m{"later_field": []int{1, 2}}}),
		rawItem(t, 9, "later"),
		rawItem(t, kindWorker, m{"completed": true, "later": m{"a": 1}}),
		rawItem(t, kindTrailer, Trailer{WorkerCount: 1}))
	got, err := Decode(bytes.NewReader(data), Limits{})
	if err != nil || len(got.Workers) != 1 {
		t.Errorf("%d workers, %v", len(got.Workers), err)
	}
}

func TestDecodeBytesLimit(t *testing.T) {
	// A bomb: 64 MiB of workers that compress to almost nothing.
	items := [][]byte{rawItem(t, kindHeader, header{SchemaVersion: SchemaVersion})}
	w := rawItem(t, kindWorker, m{"completed": true, "pad": make([]byte, 1<<20)})
	for range 64 {
		items = append(items, w)
	}
	data := stream(t, items...)
	got, err := Decode(bytes.NewReader(data), Limits{Bytes: 4 << 20})
	if !errors.Is(err, ErrLimit) || len(got.Workers) > 4 {
		t.Errorf("%d workers from %d bytes, %v", len(got.Workers), len(data), err)
	}
}

func TestDecodeGarbage(t *testing.T) {
	full := encode(t, sampleReport())
	flipped := stream(t, rawItem(t, kindHeader, header{SchemaVersion: SchemaVersion}), rawItem(t, kindTrailer, Trailer{}))
	flipped[len(flipped)-2] ^= 0x40 // in the checksum
	for name, data := range map[string][]byte{
		"text":          []byte("this is not a report"),
		"other file":    append([]byte{0x1f, 0x8b, 8}, full...),
		"trailing data": append(bytes.Clone(full), "tail"...),
		"checksum":      flipped,
	} {
		if got, err := Decode(bytes.NewReader(data), Limits{}); !errors.Is(err, ErrCorrupt) || got == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInvalidTextIsMadeValid(t *testing.T) {
	r := &Report{SchemaVersion: SchemaVersion, Run: Run{KernelCmdline: "quiet \xff\xfe x"}}
	got, err := Decode(bytes.NewReader(encode(t, r)), Limits{})
	if err != nil || got.Run.KernelCmdline != "quiet \uFFFD x" {
		t.Errorf("%q, %v", got.Run.KernelCmdline, err)
	}
}

func TestSamplesCBOR(t *testing.T) {
	for _, s := range []Samples{{}, {0}, {1, math.MaxUint32}, make(Samples, 300)} {
		b, err := s.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		if err := cbor.Wellformed(b); err != nil {
			t.Errorf("%d samples: %v", len(s), err)
		}
		var got Samples
		if err := got.UnmarshalCBOR(b); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%d samples came back as %d, %v", len(s), len(got), err)
		}
	}
	small, _ := Samples{1, 2, 3}.MarshalCBOR()
	if want := 2 + 1 + 3*4; len(small) != want {
		t.Errorf("3 small samples take %d bytes, want %d", len(small), want)
	}
}

// Samples are nanoseconds in JSON, both ways.
func TestSamplesJSON(t *testing.T) {
	type with struct {
		Samples Samples `json:"samples,omitempty"`
	}
	for want, s := range map[string]Samples{
		`{}`:                            nil,
		`{"samples":[0,7,2147483647]}`:  {PackSample(0), PackSample(7), PackSample(1<<31 - 1)},
		`{"samples":[2147483648,5]}`:    {PackSample(1<<31 + 3), PackSample(5)},
		`{"samples":[1099511627776,1]}`: {PackSample(1 << 40), PackSample(1)},
	} {
		b, err := json.Marshal(with{s})
		var back with
		if err := errors.Join(err, json.Unmarshal(b, &back)); err != nil || string(b) != want || !reflect.DeepEqual(back.Samples, s) {
			t.Errorf("%v: %s, want %s; back %v, %v", s, b, want, back.Samples, err)
		}
	}
	var s Samples
	if err := json.Unmarshal([]byte(`[-1]`), &s); err == nil {
		t.Errorf("a negative duration is %v", s)
	}
}

// FuzzDecode: no input panics; an error is of exactly one class; what is decoded
// can be aggregated, judged and written, and its figures are in order.
func FuzzDecode(f *testing.F) {
	small := failedReport() // small seeds: the fuzzer spends its time on what it mutates
	small.Workers = small.Workers[1:3]
	small.Workers[0].WakeLatency = population(10, 9, 12)
	small.Workers[1].WakeLatency = nil
	full := encode(f, small)
	for _, n := range []int{len(full), len(full) - 5, len(full) / 2, 40} {
		f.Add(full[:n], false)
	}
	zr, _ := zstd.NewReader(nil)
	plain, err := zr.DecodeAll(full, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, true)
	f.Add(bytes.Join([][]byte{
		rawItem(f, kindHeader, header{SchemaVersion: 1}), rawItem(f, kindWorker, m{"wake_latency_ns": m{"buckets": Buckets{{1, 1, 1}}}}),
		rawItem(f, kindTrailer, Trailer{WorkerCount: 1}),
	}, nil), true)
	zw, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	f.Fuzz(func(t *testing.T, data []byte, compress bool) {
		if compress { // lets the fuzzer at the CBOR without guessing zstd
			data = zw.EncodeAll(data, nil)
		}
		limits := Limits{Bytes: 1 << 22, Item: 1 << 20, Workers: 100}
		r, err := Decode(bytes.NewReader(data), limits)
		if err != nil && classes(err) != 1 {
			t.Fatalf("class of %v", err)
		}
		r.Aggregate(nil)
		r.Judge()
		if err != nil && r.Verdict != Fail {
			t.Fatalf("verdict %s of a broken report", r.Verdict)
		}
		for i := range r.Groups {
			for _, l := range r.Groups[i].latencies() {
				if l.lat == nil {
					continue
				}
				l.lat.Buckets = nil // of several schemes, they may overlap once merged
				if err := l.lat.check(); err != nil {
					t.Fatalf("%s: %v", l.name, err)
				}
			}
		}
		var out bytes.Buffer
		if err := WriteJSON(&out, r, true); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(out.Bytes()) {
			t.Fatalf("not JSON: %s", out.Bytes())
		}
		if err := WriteTable(&out, r, 0); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkEncode is what one worker's report costs the guest.
func BenchmarkEncode(b *testing.B) {
	for _, samples := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("samples=%d", samples), func(b *testing.B) {
			w := sampleReport().Workers[2]
			w.WakeLatency = population(1_000, 97, 10_000)
			w.WakeLatency.Samples = w.WakeLatency.Samples[:samples]
			e, err := NewEncoder(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			if err := e.Header(sampleRun()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Worker(&w); err != nil {
					b.Fatal(err)
				}
			}
			if err := e.Flush(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
