#!/usr/bin/python3
"""Makes the payloads of this directory: a tiny vmlinux, packed the way Linux
packs its kernels (scripts/Makefile.lib). Needs gzip, xz, zstd, lz4, bzip2, lzop."""
import struct, subprocess, os

os.chdir(os.path.dirname(os.path.abspath(__file__)))
note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000000)
other = struct.pack("<III4sI", 4, 4, 6, b"Xen\0", 1)
# Calls to one target: what the x86 filter of xz rewrites.
code = b"".join(b"\xe8" + struct.pack("<i", 0x4000 - 5 * (i + 1)) for i in range(3000))
banner = b"Linux version %s (%s)\0Linux version 6.99.1-test (a@b) #1 SMP\0"
body = other + note + code + banner
hdr = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0x1000000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
base = 64 + 2 * 56
load = struct.pack("<IIQQQQQQ", 1, 5, base, 0x1000000, 0x1000000, len(body), len(body), 4096)
pnote = struct.pack("<IIQQQQQQ", 4, 4, base, 0, 0, len(other + note), len(other + note), 4)
open("vmlinux", "wb").write(hdr + load + pnote + body)
for ext, cmd in {
    "gzip": ["gzip", "-n", "-9"],
    "xz": ["xz", "--check=crc32", "--x86", "--lzma2=dict=128MiB"],
    "zstd": ["zstd", "-22", "--ultra", "-q"],
    "lz4": ["lz4", "-l", "-9", "-q"],
    "bzip2": ["bzip2", "-9"],
    "lzma": ["xz", "--format=lzma", "-9"],
    "lzo": ["lzop", "-9"],
}.items():
    try:
        with open("vmlinux", "rb") as i, open("payload." + ext, "wb") as o:
            subprocess.run(cmd + (["-"] if ext == "lz4" else []), stdin=i, stdout=o, check=True)
    except FileNotFoundError:
        os.remove("payload." + ext)
        print("no", cmd[0], "on this machine: payload." + ext, "not made")
