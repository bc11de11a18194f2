package report

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
)

// fullReservoirs is a report of workers with so many samples in each population.
func fullReservoirs(workers, samples int) *Report {
	r := &Report{SchemaVersion: SchemaVersion}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range workers {
		var all [3]*Latency
		for p := range all {
			s := make(Samples, samples)
			for j := range s {
				s[j] = PackSample(uint64(random.ExpFloat64() * 1e5))
			}
			if p == 2 && samples > 0 {
				s[samples/2] = PackSample(1 << 40)
			}
			all[p] = &Latency{Count: uint64(samples), Samples: s}
		}
		r.Workers = append(r.Workers, Worker{Index: i, Completed: true, WakeLatency: all[0], IterationCost: all[1], TimerLatency: all[2]})
	}
	return r
}

// Full reservoirs travel in parts and come back whole, and the worker that was
// encoded still has them.
func TestFullReservoirs(t *testing.T) {
	for _, n := range []int{0, 1, sampleChunk, sampleChunk + 1, 100_000} {
		want := fullReservoirs(3, n)
		data := encode(t, want)
		got, err := Decode(bytes.NewReader(data), Limits{KeepSamples: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range got.Workers {
			for p, l := range w.latencies() {
				if s := want.Workers[i].latencies()[p].lat.Samples; len(s) != n || n > 0 && !reflect.DeepEqual(l.lat.Samples, s) {
					t.Errorf("%d samples of %s come back as %d", n, l.name, len(l.lat.Samples))
				}
			}
		}
	}
}

// An encoder of full reservoirs allocates next to nothing for them.
func TestReservoirsAreStreamed(t *testing.T) {
	r := fullReservoirs(1, 100_000)
	e, err := NewEncoder(discard{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Header(Run{}); err != nil {
		t.Fatal(err)
	}
	b := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Worker(&r.Workers[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
	if n := b.AllocedBytesPerOp(); n > 64<<10 {
		t.Errorf("%d bytes are allocated for a worker", n)
	}
	t.Logf("%v for a worker", b.NsPerOp())
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestBadSamples(t *testing.T) {
	head := rawItem(t, kindHeader, header{SchemaVersion: SchemaVersion})
	worker := rawItem(t, kindWorker, m{"completed": true, "wake_latency_ns": m{"samples": Samples{1, 2}}})
	item := func(body ...byte) []byte {
		b := appendHead([]byte{majorArray | 2, kindSamples}, majorBytes, uint64(len(body)))
		return append(b, body...)
	}
	chunk := func(population int, s ...Sample) []byte {
		return append(appendChunkHead(nil, population, len(s)), Samples(s).bytes()...)
	}
	good := chunk(0, 1, 2, 3)
	for _, tt := range []struct {
		name  string
		items [][]byte
		want  error
	}{
		{"at the limit", [][]byte{head, worker, item(good...)}, ErrTorn}, // no trailer
		{"before any worker", [][]byte{head, item(good...)}, ErrCorrupt},
		{"above the limit", [][]byte{head, worker, item(good...), item(good...)}, ErrLimit},
		{"of nothing", [][]byte{head, worker, item()}, ErrCorrupt},
		{"of no population", [][]byte{head, worker, item(chunk(3, 1)...)}, ErrCorrupt},
		{"of one the worker has not", [][]byte{head, worker, item(chunk(1, 1)...)}, ErrCorrupt},
		{"no array", [][]byte{head, worker, item(majorArray|2, 0, 1)}, ErrCorrupt},
		{"of wide words", [][]byte{head, worker, item(majorArray|2, 0, majorTag|24, 71, majorBytes|8, 1, 2, 3, 4, 5, 6, 7, 8)}, ErrCorrupt},
		{"odd length", [][]byte{head, worker, item(majorArray|2, 0, majorTag|24, tagUint32LE, majorBytes|3, 1, 2, 3)}, ErrCorrupt},
	} {
		got, err := Decode(bytes.NewReader(stream(t, tt.items...)), Limits{Samples: 5, KeepSamples: true})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if len(tt.items) > 2 && len(got.Workers) != 1 {
			t.Errorf("%s: %d workers are saved", tt.name, len(got.Workers))
		}
	}
}
