package spec

import "strings"

// Nearest returns the one of names that name was most likely meant to be, or ""
// if none is near. Case, "_" and "-" do not count, a swap of neighbours is one
// slip, and up to a third of the letters may be wrong.
func Nearest(name string, names []string) string {
	const longest = 64
	a := fold(name)
	if a == "" || len(a) > longest {
		return ""
	}
	best, least := "", 1+max(1, len(a)/3)
	for _, n := range names {
		b := fold(n)
		if len(b) > longest {
			continue
		}
		if d := distance(a, b); d < least {
			best, least = n, d
		}
	}
	return best
}

func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
}

// distance is the optimal string alignment distance of a and b, in bytes.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// suggest is "; did you mean NAME?" if a name is near, else the list of names.
func suggest(name string, names []string) string {
	if n := Nearest(name, names); n != "" {
		return "; did you mean " + n + "?"
	}
	return "; one of " + strings.Join(names, ", ")
}
