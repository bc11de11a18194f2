package kernel

import "strings"

// compareVersions orders version strings the way dpkg does (deb-version(7)):
// runs of digits compare as numbers, '~' sorts before everything, even before
// the end of the string, and letters sort before other characters. Kernel
// releases compare well under the same rules.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		var pa, pb string
		pa, a = cutNonDigits(a)
		pb, b = cutNonDigits(b)
		if c := compareText(pa, pb); c != 0 {
			return c
		}
		pa, a = cutDigits(a)
		pb, b = cutDigits(b)
		if c := compareNumbers(pa, pb); c != 0 {
			return c
		}
	}
	return 0
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func cutNonDigits(s string) (head, tail string) {
	i := 0
	for i < len(s) && !isDigit(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func cutDigits(s string) (head, tail string) {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func compareText(a, b string) int {
	for i := range max(len(a), len(b)) {
		if d := textWeight(a, i) - textWeight(b, i); d != 0 {
			return d
		}
	}
	return 0
}

func textWeight(s string, i int) int {
	if i >= len(s) {
		return 0
	}
	switch c := s[i]; {
	case c == '~':
		return -1
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return int(c)
	default:
		return int(c) + 256
	}
}

// compareNumbers compares digit strings of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// matchesVersion tells whether have is want or a more exact form of it:
// 6.1 matches 6.1.176-1 and 6.1.0-50-cloud-amd64, but not 6.12.95.
func matchesVersion(have, want string) bool {
	rest, ok := strings.CutPrefix(have, want)
	return ok && want != "" && (rest == "" || strings.IndexByte(".-+~", rest[0]) >= 0)
}
