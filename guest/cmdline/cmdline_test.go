package cmdline

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		in   string
		want []Param
	}{
		{"", nil},
		{" \t\n", nil},
		{"quiet", []Param{{"quiet", "", false}}},
		{"a=b c= d", []Param{{"a", "b", true}, {"c", "", true}, {"d", "", false}}},
		{`a="b c" d`, []Param{{"a", "b c", true}, {"d", "", false}}},
		{`"a=b c" d`, []Param{{"a", "b c", true}, {"d", "", false}}},
		{`"a b"`, []Param{{"a b", "", false}}},
		{`a=b" "c`, []Param{{"a", `b" "c`, true}}},
		{`a="b c`, []Param{{"a", "b c", true}}},
		{`a="`, []Param{{"a", "", true}}},
		{`"`, []Param{{"", "", false}}},
		{"a=b=c", []Param{{"a", "b=c", true}}},
		{"=a", []Param{{"=a", "", false}}},
		{"=a=b", []Param{{"=a", "b", true}}},
		{"a -- b", []Param{{"a", "", false}}},
	}
	for _, tt := range tests {
		if got := Split(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Split(%q) = %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	def := func(change func(*Line)) Line {
		l := Line{Link: LinkAuto}
		if change != nil {
			change(&l)
		}
		return l
	}
	tests := []struct {
		name    string
		in      string
		want    Line
		err     string // part of the error; "" for none
		warning string // part of the only warning; "" for none
	}{
		{"empty", "", def(nil), "", ""},
		{"others' keys", "console=ttyS0 quiet panic=-1 guest.link=none", def(nil), "", ""},
		{"all", `guestinit.spec=link guestinit.link=serial guestinit.deadline="30s" guestinit.quiet`,
			def(func(l *Line) { l.Spec, l.Link, l.Deadline, l.Quiet = SpecLink, LinkSerial, 30*time.Second, true }), "", ""},
		{"quiet off", "guestinit.quiet=0", def(nil), "", ""},
		{"quiet on", "guestinit.quiet=1", def(func(l *Line) { l.Quiet = true }), "", ""},
		{"last counts", "guestinit.link=serial guestinit.link=none", def(func(l *Line) { l.Link = LinkNone }), "", "more than once"},
		{"near miss", "guestinit.dedline=1s", def(nil), "", "did you mean guestinit.deadline?"},
		{"far miss", "guestinit.colour=red", def(nil), "", "known keys: guestinit.spec"},
		{"dashes", "guestinit.some-thing", def(nil), "", "guestinit.some_thing"},
		{"arguments of init", "-- guestinit.link=none", def(nil), "", ""},
		{"bad link", "guestinit.link=pigeon guestinit.quiet", def(func(l *Line) { l.Quiet = true }), `unknown link "pigeon"; give vsock, vsock:PORT, serial`, ""},
		{"bad deadline", "guestinit.deadline=soon", def(nil), "not a duration", ""},
		{"short deadline", "guestinit.deadline=0s", def(nil), "outside 100ms to 168h", ""},
		{"bad quiet", "guestinit.quiet=maybe", def(nil), "truth value", ""},
		{"empty spec", "guestinit.spec=", def(nil), "guestinit.spec: empty", ""},
		{"two errors", "guestinit.spec= guestinit.link=x", def(nil), "guestinit.link: unknown", ""},
		{"too long", strings.Repeat("x", MaxLine+1), def(nil), "limit 65536", ""},
		{"too many", strings.Repeat("x ", MaxParams+1), def(nil), "limit 1024", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			warnings := strings.Join(got.Warnings, "\n")
			if (warnings == "") != (tt.warning == "") || !strings.Contains(warnings, tt.warning) {
				t.Errorf("warnings %q, want one with %q", warnings, tt.warning)
			}
			got.Raw, got.Warnings = "", nil
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestFormat(t *testing.T) {
	for _, v := range []string{"", "plain", "two words", "a=b", "tab\there"} {
		s, err := Format("key", v)
		if err != nil {
			t.Fatal(err)
		}
		want := []Param{{"before", "", false}, {"key", v, true}, {"after", "", false}}
		if got := Split("before " + s + " after"); !reflect.DeepEqual(got, want) {
			t.Errorf("Format(%q) = %s, which reads as %+v", v, s, got)
		}
	}
	for _, v := range []string{`a"b`, "a\nb", "a\x00b"} {
		if s, err := Format("key", v); err == nil {
			t.Errorf("Format(%q) = %s, want an error", v, s)
		}
	}
}

func TestSpecRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	object := append([]byte(`{"name":"`), bytes.Repeat([]byte("x"), plainSpec)...)
	for _, in := range [][]byte{[]byte("{}"), object[:plainSpec], object[:plainSpec+1], []byte("[]"), bytes.Repeat([]byte(`{"a":1}`), 1000), noise} {
		s, err := EncodeSpec(in)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := Format(KeySpec, s); err != nil || f != KeySpec+"="+s {
			t.Errorf("encoded spec needs quoting: %v", err)
		}
		for _, s := range []string{s, s + "=="} {
			if out, err := DecodeSpec(s); err != nil || !bytes.Equal(out, in) {
				t.Errorf("%d bytes come back as %d, error %v", len(in), len(out), err)
			}
		}
	}
}

// A short spec stands there as it is, so that the guest need not unpack it.
func TestShortSpecIsPlain(t *testing.T) {
	const spec = `{"version":1}`
	s, err := EncodeSpec([]byte(spec))
	if err != nil || s != "eyJ2ZXJzaW9uIjoxfQ" {
		t.Errorf("%q, %v", s, err)
	}
}

func TestDecodeSpecErrors(t *testing.T) {
	bomb, err := EncodeSpec(make([]byte, MaxSpec+1))
	if err != nil {
		t.Fatal(err)
	}
	good, _ := EncodeSpec(bytes.Repeat([]byte(`{"version":1}`), plainSpec))
	empty, _ := EncodeSpec(nil)
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	long, _ := EncodeSpec(noise)
	tests := []struct{ name, in, want string }{
		{"not base64", "a b", "illegal base64"},
		{"not zstd", "aGVsbG8gd29ybGQ", "magic"},
		{"bomb", bomb, "exceeds"},
		{"torn", good[:len(good)-4], "decode guestinit.spec"},
		{"empty", empty, "empty"},
		{"cut off by the kernel", long[:2000], "2047 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if out, err := DecodeSpec(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %d bytes, error %v, want one with %q", len(out), err, tt.want)
			}
		})
	}
}

func TestEditDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"dedline", "deadline", 1}}
	for _, tt := range tests {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`console=ttyS0 guestinit.spec=link guestinit.link="serial" guestinit.deadline=5s guestinit.quiet`)
	f.Add(`"guestinit.link=none" guestinit.quiet=0 -- x`)
	f.Add(`guestinit.=1 guestinit.links=a guestinit.deadline=99999h ="`)
	f.Fuzz(func(t *testing.T, in string) {
		l, err := Parse(in)
		if l.Link != LinkAuto && l.Link != LinkVsock && l.Link != LinkSerial && l.Link != LinkNone {
			t.Fatalf("link %q", l.Link)
		}
		if l.Deadline != 0 && (l.Deadline < MinDeadline || l.Deadline > MaxDeadline) {
			t.Fatalf("deadline %v", l.Deadline)
		}
		if len(in) > MaxLine && err == nil {
			t.Fatalf("%d bytes accepted", len(in))
		}
		// What can be formatted reads back as it was.
		for _, p := range Split(in) {
			if p.Key == "" || p.Key[0] == '=' || strings.ContainsAny(p.Key, "\"= \t\n\v\f\r") || p.Key == "--" {
				continue
			}
			s, err := Format(p.Key, p.Value)
			if err != nil {
				continue
			}
			if got := Split(s); len(got) != 1 || got[0].Key != p.Key || got[0].Value != p.Value {
				t.Fatalf("Format(%q, %q) = %q reads as %+v", p.Key, p.Value, s, got)
			}
		}
	})
}

func FuzzDecodeSpec(f *testing.F) {
	for _, in := range []string{"{}", `{"version":1,"groups":[]}`} {
		s, err := EncodeSpec([]byte(in))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Add("link")
	f.Fuzz(func(t *testing.T, in string) {
		out, err := DecodeSpec(in)
		if err != nil {
			return
		}
		if len(out) == 0 || len(out) > MaxSpec {
			t.Fatalf("%d bytes accepted", len(out))
		}
		if len(out) > 1<<20 {
			return // packing that again is too slow for a fuzzer
		}
		again, err := EncodeSpec(out)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeSpec(again); err != nil || !bytes.Equal(back, out) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

func TestLinks(t *testing.T) {
	for _, tt := range []struct {
		value string
		link  string
		port  uint32
		bad   bool
	}{
		{"auto", LinkAuto, 0, false},
		{"vsock", LinkVsock, 0, false},
		{"vsock:1024", LinkVsock, 1024, false},
		{"vsock:4294967294", LinkVsock, 4294967294, false},
		{"serial", LinkSerial, 0, false},
		{"none", LinkNone, 0, false},
		{"vsock:", LinkAuto, 0, true},
		{"vsock:0", LinkAuto, 0, true},
		{"vsock:4294967295", LinkAuto, 0, true},
		{"vsock:-1", LinkAuto, 0, true},
		{"serial:1", LinkAuto, 0, true},
		{"", LinkAuto, 0, true},
	} {
		l, err := Parse(KeyLink + "=" + tt.value)
		if l.Link != tt.link || l.Port != tt.port || (err != nil) != tt.bad {
			t.Errorf("%q: link %q, port %d, %v", tt.value, l.Link, l.Port, err)
		}
	}
}
