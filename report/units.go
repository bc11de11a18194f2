package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// formatNs is a duration for people: three digits and the unit that fits, in
// ASCII so that columns hold: 0, 850ns, 1.25us, 31.0ms, 4.02s, 18m05s, 3h12m, 250d.
func formatNs(ns float64) string {
	switch {
	case ns < 0:
		return "-" + formatNs(-ns)
	case ns == 0:
		return "0"
	case ns < 999.5:
		return strconv.FormatFloat(ns, 'f', 0, 64) + "ns"
	case ns < 999.5e3:
		return digits(ns/1e3) + "us"
	case ns < 999.5e6:
		return digits(ns/1e6) + "ms"
	case ns < 999.5e9:
		return digits(ns/1e9) + "s"
	}
	s := uint64(ns / 1e9)
	if s < 3600 {
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	if s < 100*3600 {
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd", s/86400)
}

// formatCount is a number for people: three digits and k, M, G, T, P or E; whole
// numbers below 10,000 as they are.
func formatCount(n float64) string {
	if n < 10_000 && n == math.Trunc(n) {
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	for _, u := range []struct {
		scale float64
		unit  string
	}{{1, ""}, {1e3, "k"}, {1e6, "M"}, {1e9, "G"}, {1e12, "T"}, {1e15, "P"}} {
		if n < 999.5*u.scale {
			return digits(n/u.scale) + u.unit
		}
	}
	return digits(n/1e18) + "E"
}

// digits formats a number below 1000 with three significant digits.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// formatShare is part/whole in percent, or "-" without a whole.
func formatShare(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "%"
}

// printable is s with everything a terminal would act on escaped: the text may
// come from a guest.
func printable(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// clip cuts s to width runes, the last one "~" if something is missing.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "~"
}

// wrap breaks s at spaces into lines of at most width runes; a longer word is
// broken where the line ends.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		for {
			joined := word
			if line != "" {
				joined = line + " " + word
			}
			if utf8.RuneCountInString(joined) <= width {
				line = joined
				break
			}
			if line != "" {
				lines, line = append(lines, line), ""
				continue
			}
			runes := []rune(word)
			lines, word = append(lines, string(runes[:width])), string(runes[width:])
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
