#!/usr/bin/env bash
# Runs every fuzz target for a while.
#
# Usage: fuzz.sh TIME (per target, as `go test -fuzztime` takes it)
set -euo pipefail
cd "$(dirname "$0")/.."

while IFS=: read -r file func; do
	name=${func#func }
	echo "fuzz: $(dirname "$file") $name"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$1" "./$(dirname "$file")"
done < <(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' .)
