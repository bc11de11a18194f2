#!/bin/sh
# Builds a guest image as `guestinit pack` does, with cpio(1) and the shell.
#
# Usage: mkinitrd.sh -o FILE [-i INIT] [-k KERNEL_DIR | -m MODULES_DIR]
#                    [-f SRC[:DST]]... [-s SPEC.json] [-c COMPRESSION] [FEATURE...]
#
#   -o FILE         the image to write
#   -i INIT         static binary that becomes /init; default: bin/guestinit
#                   beside this directory, else the guestinit in PATH
#   -k KERNEL_DIR   unpacked kernel package, as in ~/.cache/guestinit/kernels
#   -m MODULES_DIR  lib/modules/RELEASE of the kernel
#                   (without -k and -m the drivers must be built in)
#   -f SRC[:DST]    host file or directory to add; libraries of programs follow
#   -s SPEC.json    spec to run, in canonical JSON
#   -c COMPRESSION  none (default), gzip, lz4 or zstd
#   FEATURE         serial or vsock; default: both
#
# It knows hard dependencies of modules only; `guestinit pack` also follows
# soft ones. Needs GNU cpio, xz or zstd for modules packed with them, and the
# program of the compression.
set -eu
LC_ALL=C
export LC_ALL
umask 022

die() {
	echo "mkinitrd: $*" >&2
	exit 1
}

usage() {
	sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

case ${1-} in
-h | --help)
	(usage) 2>&1 || true
	exit 0
	;;
esac

features() { # the drivers of feature $1
	case $1 in
	serial) echo virtio_pci virtio_console ;;
	vsock) echo virtio_pci vmw_vsock_virtio_transport ;;
	*) die "feature $1 is not known; there are serial, vsock" ;;
	esac
}

find_modules() { # the lib/modules/RELEASE in kernel directory $1
	for dir in "$1"/lib/modules/*/ "$1"/usr/lib/modules/*/; do
		[ -d "$dir" ] && echo "${dir%/}" && return
	done
	die "no lib/modules in $1"
}

unpack() { # the content of module file $1
	case $1 in
	*.xz) xz -dc "$1" ;;
	*.zst) zstd -qdc "$1" ;;
	*.gz) gzip -dc "$1" ;;
	*) cat "$1" ;;
	esac
}

# add_module NAME BY puts a module into the tree and into $work/order, after
# the modules it depends on. In a name, - and _ are the same.
add_module() {
	name=$(echo "$1" | tr - _)
	case " $seen " in *" $name "*) return ;; esac
	seen="$seen $name"
	pattern=$(echo "$name" | sed 's/_/[-_]/g')
	if grep -q "/$pattern\.ko\$" "$modules/modules.builtin" 2>/dev/null; then return; fi
	file=$(find "$modules/" -name "$pattern.ko" -o -name "$pattern.ko.xz" -o -name "$pattern.ko.zst" -o -name "$pattern.ko.gz" | sort | head -n 1)
	[ -n "$file" ] || die "module $name, which $2 needs, is neither built in nor in $modules"
	rel=${file#"$modules/"}
	set -- "$name" "lib/modules/${modules##*/}/${rel%%.ko*}.ko"
	mkdir -p "$root/$(dirname "$2")"
	unpack "$file" >"$root/$2" || die "unpack $file"
	for dep in $(tr '\0' '\n' <"$root/$2" | sed -n 's/^depends=//p' | tr ',' ' '); do
		add_module "$dep" "$1"
	done
	echo "$2" >>"$work/order"
}

add_file() { # SRC[:DST]
	src=${1%%:*}
	case $1 in *:*) dst=${1#*:} ;; *) dst=$(realpath -s "$src") ;; esac
	[ -e "$src" ] || die "add $src: no such file"
	[ ! -e "$root/$dst" ] || [ -d "$src" ] || die "add /$dst: already there"
	mkdir -p "$root/$(dirname "$dst")"
	if [ -d "$src" ]; then
		mkdir -p "$root/$dst"
		cp -R -P "$src/." "$root/$dst/"
		return
	fi
	cp -L "$src" "$root/$dst"
	ldd "$src" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r lib; do
		mkdir -p "$root/$(dirname "$lib")"
		cp -L "$lib" "$root/$lib"
		chmod 755 "$root/$lib"
	done
}

# node writes a cpio record by hand: making a device node takes root.
node() { # NAME MODE NLINK MAJOR MINOR
	size=$((${#1} + 1))
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
		0 "$2" 0 0 "$3" 0 0 0 0 "$4" "$5" "$size" 0 "$1"
	pad=$(((4 - (110 + size) % 4) % 4))
	[ "$pad" -eq 0 ] || head -c "$pad" /dev/zero
}

archive() {
	node dev 0040755 2 0 0
	node dev/console 0020600 1 5 1
	node dev/null 0020666 1 1 3
	cd "$root"
	find . -mindepth 1 -exec touch -h -d @0 {} +
	{
		# First the list and init: a cut image can then say that it is.
		printf '%s\n' etc etc/guestinit etc/guestinit/modules init
		find . -mindepth 1 ! -path ./etc ! -path ./etc/guestinit ! -path ./etc/guestinit/modules \
			! -path ./init ! -path ./etc/guestinit/complete | sed 's,^\./,,' | sort
		echo etc/guestinit/complete
	} | cpio -o -H newc -R 0:0 --reproducible --quiet
}

out='' init='' modules='' spec='' compression=none
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
root=$work/root
mkdir -p "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/etc/guestinit" "$root/bbin"

while getopts o:i:k:m:f:s:c:h opt; do
	case $opt in
	o) out=$OPTARG ;;
	i) init=$OPTARG ;;
	k) modules=$(find_modules "$OPTARG") ;;
	m) modules=$(realpath "$OPTARG") ;;
	f) add_file "$OPTARG" ;;
	s) spec=$OPTARG ;;
	c) compression=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ -n "$out" ] || usage
[ $# -gt 0 ] || set -- serial vsock

if [ -z "$init" ]; then
	init=$here/../bin/guestinit
	[ -x "$init" ] || init=$(command -v guestinit) || die "no guestinit binary; run 'make build' or give one with -i"
fi
cp -L "$init" "$root/init"
chmod 755 "$root/init"
ln -s /init "$root/bbin/guestinit"

: >"$root/etc/guestinit/modules"
for feature; do
	drivers=$(features "$feature")
	[ -n "$modules" ] || continue
	seen=
	: >"$work/order"
	for driver in $drivers; do
		add_module "$driver" "feature $feature"
	done
	sed "s,^,$feature /," "$work/order" >>"$root/etc/guestinit/modules"
done
[ -z "$spec" ] || [ "$(head -c 1 "$spec")" = '{' ] || die "spec $spec is no JSON; guestinit pack takes YAML too"
[ -z "$spec" ] || cp "$spec" "$root/etc/guestinit/spec.json"
echo 'guestinit image 1' >"$root/etc/guestinit/complete"
chmod 644 "$root"/etc/guestinit/*

case $compression in
none) pack='cat' ;;
gzip) pack='gzip -n' ;;
lz4) pack='lz4 -l -q' ;; # the kernel knows the legacy frame only
zstd) pack='zstd -q' ;;
*) die "compression $compression is not known; use none, gzip, lz4 or zstd" ;;
esac
(archive) >"$work/image"
$pack <"$work/image" >"$work/packed"
[ -s "$work/packed" ] || die "pack the image with $pack"
cat "$work/packed" >"$out"
