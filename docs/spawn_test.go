package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSpawnRules holds the table of docs/spawn.md to what exists: a row for every
// rule, in order, tests that
// are there, symbols that are declared.
func TestSpawnRules(t *testing.T) {
	const rules = 33
	tests := testNames(t)
	row := regexp.MustCompile(`(?m)^\| S(\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$`)
	quoted := regexp.MustCompile("`([^`]+)`")
	found := row.FindAllStringSubmatch(read(t, "docs/spawn.md"), -1)
	if len(found) != rules {
		t.Errorf("%d rows for %d rules", len(found), rules)
	}
	for i, m := range found {
		rule := fmt.Sprintf("S%d", i+1)
		if "S"+m[1] != rule {
			t.Fatalf("row %d is of rule S%s", i+1, m[1])
		}
		names, places := quoted.FindAllStringSubmatch(m[3], -1), quoted.FindAllStringSubmatch(m[4], -1)
		if len(names) == 0 || len(places) == 0 {
			t.Errorf("%s: %d tests, %d places", rule, len(names), len(places))
		}
		for _, n := range names {
			if !tests[n[1]] {
				t.Errorf("%s: there is no test %s", rule, n[1])
			}
		}
		for _, p := range places {
			if err := declares(p[1]); err != nil {
				t.Errorf("%s: %v", rule, err)
			}
		}
	}
}

// testNames are the tests of the packages that the pipeline is made of.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range []string{"spawn", "worker", "internal/bare"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("tests of %s: %v", dir, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(b, -1) {
				names[string(m[1])] = true
			}
		}
	}
	return names
}

// declares checks that a file has a symbol, given as FILE:SYMBOL.
func declares(place string) error {
	file, symbol, ok := strings.Cut(place, ":")
	if !ok {
		return fmt.Errorf("%q is no FILE:SYMBOL", place)
	}
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return err
	}
	decl := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |var |const )` + regexp.QuoteMeta(symbol) + `\b`)
	if !decl.Match(b) {
		return fmt.Errorf("%s declares no %s", file, symbol)
	}
	return nil
}
