// Package report is the model of one run: what it ran on, what each worker
// measured and how it ended. It is plain data, with its codec (CBOR in a zstd
// stream between guest and host, JSON for people), its aggregates and its
// renderers. It imports nothing else of guestinit but internal/sample and never
// runs anything.
//
// # Wire form
//
// One zstd stream holds a CBOR sequence (RFC 8742) of items [kind, body]; body
// is a byte string that holds one CBOR value:
//
//	kind 1  header   first: {schema_version, run so far}
//	kind 2  worker   one per worker, any number
//	kind 4  samples  behind its worker: [population, typed array], any number; the
//	                 populations are wake latency, iteration cost, timer latency
//	kind 3  trailer  last: {worker_count, run, notes, failures}
//
// A kind that a reader does not know is skipped: its length is stated. Both sides
// stream: the guest holds one worker at a time, and a stream that breaks off is
// read as far as it goes. Samples are typed arrays (RFC 8746), buckets byte strings
// of varints, migrations plain arrays, all else maps with the names of the JSON form.
//
// # Trust
//
// The guest may be broken or hostile, so Decode bounds every length before it
// allocates, refuses numbers that cannot be, and computes percentiles anew. Text
// is kept as it came, made valid UTF-8; the table escapes what is not printable.
package report
