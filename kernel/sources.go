package kernel

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one line of apt's sources with a single suite: what it takes to
// fetch the main component of that suite.
type source struct {
	uri      string
	suite    string
	signedBy string // keyring path, fingerprint or key block, as apt takes it; may be empty
	trusted  string // value of apt's Trusted option; may be empty
}

// stanza is one paragraph of an RFC 822 style file: deb822 sources and apt's
// package records. Field names are in lower case; continuation lines keep
// their newline and leading space.
type stanza map[string]string

const maxStanzaLine = 1 << 20

// parseStanzas reads paragraphs of "Field: value" lines.
func parseStanzas(r io.Reader) ([]stanza, error) {
	var (
		all  []stanza
		cur  = stanza{}
		last string
	)
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxStanzaLine)
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), " \t\r")
		switch {
		case line == "":
			if len(cur) > 0 {
				all, cur = append(all, cur), stanza{}
			}
			last = ""
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				cur[last] += "\n" + line
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("parse line %q: no colon", line)
			}
			last = strings.ToLower(name)
			cur[last] = strings.TrimSpace(value)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(cur) > 0 {
		all = append(all, cur)
	}
	return all, nil
}

// parseDeb822 reads a .sources file (sources.list(5), deb822 style) and
// returns the sources that carry binary packages of component main.
func parseDeb822(r io.Reader) ([]source, error) {
	stanzas, err := parseStanzas(r)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, s := range stanzas {
		if s["enabled"] == "no" ||
			!slices.Contains(strings.Fields(s["types"]), "deb") ||
			!slices.Contains(strings.Fields(s["components"]), "main") {
			continue
		}
		for _, uri := range strings.Fields(s["uris"]) {
			for _, suite := range strings.Fields(s["suites"]) {
				out = append(out, source{uri: uri, suite: suite, signedBy: s["signed-by"], trusted: s["trusted"]})
			}
		}
	}
	return out, nil
}

// parseOneLine reads a sources.list file of lines
// "deb [options] URI suite component...".
func parseOneLine(r io.Reader) ([]source, error) {
	var out []source
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), "deb ")
		if !ok {
			continue
		}
		var src source
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, tail, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return nil, fmt.Errorf("parse line %q: no closing bracket", line)
			}
			src.setOptions(options)
			rest = tail
		}
		f := strings.Fields(rest)
		if len(f) < 3 || !slices.Contains(f[2:], "main") {
			continue
		}
		src.uri, src.suite = f[0], f[1]
		out = append(out, src)
	}
	return out, sc.Err()
}

func (s *source) setOptions(options string) {
	for _, o := range strings.Fields(options) {
		switch k, v, _ := strings.Cut(o, "="); strings.ToLower(k) {
		case "signed-by":
			s.signedBy = strings.ReplaceAll(v, ",", " ")
		case "trusted":
			s.trusted = v
		}
	}
}

// readSources reads every source that apt on this machine knows, from etc,
// which is /etc/apt outside tests. A file that does not parse is skipped, as
// it is none of ours, but when nothing parses the reason is the error.
func readSources(etc string) ([]source, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	var (
		out   []source
		first error
	)
	for _, name := range files {
		got, err := readSourceFile(name)
		if err != nil && !os.IsNotExist(err) && first == nil {
			first = fmt.Errorf("read %s: %w", name, err)
		}
		out = append(out, got...)
	}
	if len(out) == 0 {
		return nil, first
	}
	return out, nil
}

func readSourceFile(name string) ([]source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if strings.HasSuffix(name, ".sources") {
		return parseDeb822(f)
	}
	return parseOneLine(f)
}

// archive is the Debian archive this machine uses.
type archive struct {
	own       []source // the machine's own suite with updates and security
	backports source
	unstable  source
}

// newArchive picks the Debian archive out of the machine's sources. codename
// is VERSION_CODENAME of os-release and may be empty on sid.
func newArchive(all []source, codename string) (archive, error) {
	var a archive
	base, ok := baseSource(all, codename)
	if !ok {
		return a, fmt.Errorf("find the Debian archive among %d apt sources: none has suite %q and component main", len(all), codename)
	}
	a.own = []source{base}
	a.backports, a.unstable = base, base
	a.backports.suite, a.unstable.suite = base.suite+"-backports", "sid"
	for _, s := range all {
		switch s.suite {
		case base.suite + "-updates", base.suite + "-security", base.suite + "/updates":
			a.own = append(a.own, s)
		case a.backports.suite:
			a.backports = s
		case "sid", "unstable":
			a.unstable = s
		}
	}
	return a, nil
}

// baseSource finds the source of the running release. Other vendors name
// their suites after Debian's too, so a source that looks like Debian's own
// wins.
func baseSource(all []source, codename string) (source, bool) {
	var best source
	score := 0
	for _, s := range all {
		n := 0
		switch s.suite {
		case codename:
			n = 3
		case "stable", "testing", "unstable", "sid":
			n = 1
		default:
			continue
		}
		if strings.Contains(s.signedBy, "debian-archive") {
			n += 4
		}
		if strings.HasSuffix(strings.TrimRight(s.uri, "/"), "/debian") {
			n += 2
		}
		if n > score {
			best, score = s, n
		}
	}
	return best, score > 0
}

// deb822 renders sources for a private .sources file. Only package indexes
// are asked for: translations and software catalogues are of no use here.
func deb822(sources []source) string {
	var b strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nTargets: Packages\n", s.uri, s.suite)
		if s.signedBy != "" {
			fmt.Fprintf(&b, "Signed-By: %s\n", s.signedBy)
		}
		if s.trusted != "" {
			fmt.Fprintf(&b, "Trusted: %s\n", s.trusted)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
