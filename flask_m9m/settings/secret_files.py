"""Reads files that hold secrets, which may be anything that somebody put in their place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FLAGS |= getattr(os, "O_NONBLOCK", 0)  # without it, opening a named pipe would wait for a writer


def read_regular_file(
    path: Path, most: int, *, follow: bool = True
) -> tuple[bytes, os.stat_result]:
    """Read the beginning of a regular file, and never wait for a pipe or a device.

    Args:
        path: the file.
        most: maximum number of bytes to read.
        follow: whether the path may be a symbolic link, as those of Kubernetes' secrets are.

    Returns:
        The bytes, and the status of the file that was read.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    descriptor = os.open(path, _FLAGS if follow else _FLAGS | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most), status
    finally:
        os.close(descriptor)
