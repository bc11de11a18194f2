package sample

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Durations come back exact below Exact and almost so above, in their order.
func TestPack(t *testing.T) {
	for _, tt := range []struct{ ns, want uint64 }{
		{0, 0}, {1, 1}, {Exact - 1, Exact - 1}, {Exact, Exact}, {Exact + 31, Exact}, {Exact + 32, Exact + 32},
		{1 << 32, 1 << 32}, {1<<32 - 1, 1<<32 - 32}, {1 << 62, 1 << 62}, {math.MaxInt64, Max}, {1 << 63, Max}, {math.MaxUint64, Max},
	} {
		if got := Ns(Pack(tt.ns)); got != tt.want {
			t.Errorf("%d comes back as %d, want %d", tt.ns, got, tt.want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	var last uint64
	for range 100_000 {
		ns := random.Uint64() >> (1 + random.UintN(63))
		got := Ns(Pack(ns))
		if got > ns || ns < Exact && got != ns || float64(ns-got) > float64(ns)/(1<<26) {
			t.Fatalf("%d comes back as %d", ns, got)
		}
		if (ns < last) && Pack(ns) > Pack(last) || ns > last && Pack(ns) < Pack(last) {
			t.Fatalf("%d and %d are out of order", ns, last)
		}
		last = ns
	}
}

// Every word stands for a duration that packs into that word.
func TestWords(t *testing.T) {
	for word := uint64(0); word < 1<<32; word += 4093 {
		if got := Pack(Ns(uint32(word))); got != uint32(word) {
			t.Fatalf("word %#x is %d ns, which is word %#x", word, Ns(uint32(word)), got)
		}
	}
	if Ns(math.MaxUint32) != Max {
		t.Errorf("the last word is %d, want %d", Ns(math.MaxUint32), uint64(Max))
	}
}
