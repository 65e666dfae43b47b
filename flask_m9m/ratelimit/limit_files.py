"""LimitFiles: the files of a machine's rate limits, their names and their binary format.

A file has a size that never changes: a page of header, then buckets of eight slots of 16 bytes.
It is never truncated, and replaced only as a whole.

The header, integers little-endian:

    0   magic, `m9m-rl-1`
    8   buckets (8 bytes)
    16  key of the clients' hashes (16 bytes, random)
    32  length of the limit's key (2 bytes)
    34  the limit's key, UTF-8, cut at 3,000 bytes
    …   zeros, to 4,092
    4092  CRC-32 of the 4,092 bytes before (4 bytes)
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from ..processes.shared_directory import SharedDirectory, allocate, digest
from .limit import RateLimit, read_key

MAGIC = b"m9m-rl-1"
HEADER = 4_096
SLOTS = 8
BUCKET = SLOTS * 16
BUCKETS = 16_384
"""131,072 clients of each limit, in 2 MiB."""

_SIZE = HEADER + BUCKETS * BUCKET
_PARTS = struct.Struct("<8sQ16sH")
_LONGEST_LIMIT = 3_000


class LimitFiles:
    """The limits' files of one app.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: SharedDirectory) -> None:
        self.directory = directory

    def path_of(self, limit: RateLimit) -> Path:
        """Return the path at which all processes look for a limit's file."""
        # Files of another format have other names.
        name = digest(MAGIC.decode(), str(_SIZE), limit.key)
        return self.directory.path_of(f"{name}.limit")

    def paths(self) -> Iterator[Path]:
        """Return the paths of the files that exist."""
        return self.directory.paths("*.limit")

    def build(self, limit: RateLimit, instead_of: int | None = None) -> int | None:
        """Create a limit's file.

        Args:
            limit: the limit.
            instead_of: the inode of a damaged file to replace.

        Returns:
            The file's descriptor; `None` where another process was faster.

        Raises:
            OSError: there is no space, or the directory cannot be written to.
        """

        def fill(descriptor: int) -> None:
            allocate(descriptor, _SIZE)
            os.pwrite(descriptor, _header(limit), 0)

        return self.directory.build(self.path_of(limit), fill, instead_of)


def read_header(descriptor: int) -> tuple[bytes, RateLimit] | None:
    """Return a file's hash key and its limit; `None` if the file does not have this format."""
    header = os.pread(descriptor, HEADER, 0)
    if os.fstat(descriptor).st_size != _SIZE or len(header) != HEADER:
        return None
    if crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
        return None
    magic, buckets, key, length = _PARTS.unpack_from(header)
    if magic != MAGIC or buckets != BUCKETS:
        return None
    text = header[_PARTS.size : _PARTS.size + length].decode("utf-8", "replace")
    try:
        return key, read_key(text)
    except ValueError:
        return None


def _header(limit: RateLimit) -> bytes:
    text = limit.key.encode("utf-8", "replace")[:_LONGEST_LIMIT]
    parts = _PARTS.pack(MAGIC, BUCKETS, secrets.token_bytes(16), len(text)) + text
    parts = parts.ljust(HEADER - 4, b"\0")
    return parts + crc32(parts).to_bytes(4, "little")
