#!/usr/bin/env bash
# Checks that there is a Go that builds this module, and says where to get one.
#
# Usage: check-go.sh [GO]
#
# A Go from 1.21 on fetches the version that go.mod wants by itself, unless
# GOTOOLCHAIN forbids it; Debian's own may be older than that.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${1:-go}
want=$(sed -n 's/^go //p' go.mod)
remedy="install Go $want or later from https://go.dev/dl/ and put it first in PATH, or set GO=/path/to/go"
if ! command -v "$go" >/dev/null; then
	echo "check-go: no $go here; $remedy" >&2
	exit 1
fi
# The version command runs in the module, so that it is that of the toolchain chosen for it.
if ! version=$("$go" version 2>&1); then
	echo "check-go: $go version: $version; $remedy" >&2
	exit 1
fi
have=$(sed -n 's/^go version go\([0-9][0-9.]*\).*/\1/p' <<<"$version")
if [ -z "$have" ]; then
	have=$want # a development version
fi
if [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
	echo "check-go: $(command -v "$go") is Go $have, this needs $want or later; $remedy" >&2
	exit 1
fi
