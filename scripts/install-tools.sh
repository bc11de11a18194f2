#!/usr/bin/env bash
# Installs the programs that are named and missing, from Debian packages.
#
# Usage: install-tools.sh PROGRAM...
#
# As root, or with sudo that asks for no password, it installs; otherwise it says
# what to install and fails.
set -euo pipefail

package() { # the Debian packages that make program $1 work
	case $1 in
	qemu-system-x86_64) echo qemu-system-x86 ;;
	objdump | readelf) echo binutils ;;
	xz) echo xz-utils ;;
	cyclictest | hackbench) echo rt-tests ;;
	gcc) echo gcc libc6-dev ;;
	perf) echo linux-perf ;;
	taskset) echo util-linux ;;
	*) echo "$1" ;;
	esac
}

missing=()
for program in "$@"; do
	command -v "$program" >/dev/null && continue
	read -ra packages <<<"$(package "$program")"
	missing+=("${packages[@]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	as_root=(sudo -n)
	if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
		echo "install-tools: please install: apt-get install ${missing[*]}" >&2
		exit 1
	fi
fi
if ! command -v apt-get >/dev/null; then
	echo "install-tools: no apt-get here; please install what Debian calls: ${missing[*]}" >&2
	exit 1
fi

echo "install-tools: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -qq --no-install-recommends)
if ! "${as_root[@]}" "${install[@]}" "${missing[@]}" >/dev/null 2>&1; then
	"${as_root[@]}" apt-get update -qq
	"${as_root[@]}" "${install[@]}" "${missing[@]}" >/dev/null
fi
