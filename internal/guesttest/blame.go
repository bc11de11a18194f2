package guesttest

import "strings"

// lastLines is how much of the end Blame keeps: a crash says nothing of tests.
const lastLines = 40

// Blame returns what concerns a failure in the output of a test binary run with
// -test.v: all that was said while a test ran that failed, was skipped or never
// ended, and the last 40 lines. A console of a thousand lines is cut off by whoever
// keeps it, before the line that matters.
func Blame(console string) string {
	lines := strings.SplitAfter(console, "\n")
	keep := make([]bool, len(lines))
	for i := max(0, len(lines)-lastLines); i < len(lines); i++ {
		keep[i] = true
	}
	begin, ended := 0, true // of the test that runs
	mark := func(end int) {
		for i := begin; i < end; i++ {
			keep[i] = true
		}
	}
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "=== RUN ") && !strings.Contains(line, "/"):
			if !ended {
				mark(i)
			}
			begin, ended = i, false
		case strings.HasPrefix(line, "--- PASS: "):
			ended = true
		case strings.HasPrefix(line, "--- FAIL: "), strings.HasPrefix(line, "--- SKIP: "):
			for i++; i < len(lines) && strings.HasPrefix(lines[i], "    "); i++ { // its subtests
			}
			mark(i)
			begin, ended = i, true
		}
	}
	if !ended {
		mark(len(lines))
	}
	var b strings.Builder
	left := 0
	for i, line := range lines {
		if !keep[i] {
			left++
			continue
		}
		if left > 0 {
			b.WriteString("[...]\n")
			left = 0
		}
		b.WriteString(line)
	}
	return b.String()
}
