package vhostuser

// buffer holds the bytes that a guest sent and nobody has read yet. It grows
// with them; the connection's credit is its limit.
type buffer struct {
	b    []byte // length is a power of two
	r, n int    // the first byte, and how many
}

const minBuffer = 4096

// grow makes room for n more bytes.
func (f *buffer) grow(n int) {
	if f.n+n <= len(f.b) {
		return
	}
	size := max(minBuffer, len(f.b))
	for size < f.n+n {
		size *= 2
	}
	b := make([]byte, size)
	k := copy(b, f.b[f.r:min(f.r+f.n, len(f.b))])
	copy(b[k:f.n], f.b)
	f.b, f.r = b, 0
}

// fill takes n bytes in from the front of bufs, which has them.
func (f *buffer) fill(bufs [][]byte, n int) {
	f.grow(n)
	for n > 0 {
		w := (f.r + f.n) & (len(f.b) - 1)
		k, rest := take(f.b[w:min(w+n, len(f.b))], bufs)
		if k == 0 {
			return
		}
		bufs, n, f.n = rest, n-k, f.n+k
	}
}

// read moves bytes into p.
func (f *buffer) read(p []byte) (n int) {
	for n < len(p) && f.n > 0 {
		k := copy(p[n:], f.b[f.r:min(f.r+f.n, len(f.b))])
		f.r = (f.r + k) & (len(f.b) - 1)
		f.n -= k
		n += k
	}
	if f.n == 0 {
		f.r = 0 // the next bytes lie in one piece
	}
	return n
}
