#!/usr/bin/env bash
# Runs every fuzz target for a while.
#
# Usage: fuzz.sh TIME (per target, as `go test -fuzztime` takes it)
set -euo pipefail
cd "$(dirname "$0")/.."

while IFS=: read -r file func; do
	name=${func#func }
	echo "fuzz: $(dirname "$file") $name"
	# Left to itself, go minimizes the first input of note for a minute, and tries no
	# other meanwhile.
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$1" -fuzzminimizetime 10x "./$(dirname "$file")"
done < <(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' .)
