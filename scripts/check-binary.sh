#!/usr/bin/env bash
# Checks the promises about the binary: static, stripped, under 8 MB.
#
# Usage: check-binary.sh FILE
set -euo pipefail

file=$1
limit=8000000

size=$(stat -c %s "$file")
if [ "$size" -ge $limit ]; then
	echo "check-binary: $file has $size bytes, the limit is $limit" >&2
	exit 1
fi
headers=$(readelf -lS "$file")
for bad in INTERP .dynamic .symtab; do
	if grep -qF "$bad" <<<"$headers"; then
		echo "check-binary: $file has $bad: it is not static and stripped" >&2
		exit 1
	fi
done
echo "check-binary: $file: static, stripped, $size bytes"
