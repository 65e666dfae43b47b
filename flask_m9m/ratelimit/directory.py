"""The directory of a machine's rate limits: who may own it, and how its files are made.

A file has a size that never changes: a page of header, then buckets of eight slots of 16 bytes. It
is built whole under a name of its own and then linked to the name under which all processes look
for it, so that nobody ever sees half a file; it is never truncated, and replaced only as a whole.

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
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from ..errors import Problem
from .limit import RateLimit, read_key
from .store import StoreFailure

MAGIC = b"m9m-rl-1"
HEADER = 4_096
SLOTS = 8
BUCKET = SLOTS * 16
BUCKETS = 16_384
"""131,072 clients of each limit, in 2 MiB."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a directory of our own is made there

_SIZE = HEADER + BUCKETS * BUCKET
_PARTS = struct.Struct("<8sQ16sH")
_LONGEST_LIMIT = 3_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ABANDONED = 60  # seconds after which a file that was never linked is its builder's no more


class UnsafeFile(StoreFailure):
    """A file or a directory that another user could have put there, or could change."""

    def __init__(self, path: Path, found: str, accepted: str) -> None:
        super().__init__(f"{path}: {found}; accepted is {accepted}", unsafe=True)
        self.problem = Problem("performance.rate_limit.path", f"{path}, {found}", accepted)


class Directory:
    """Where the files of one app lie, as all of its processes on this machine find them.

    Args:
        path: `performance.rate_limit.path`; without one, a directory of the user's own in shared
            memory or among temporary files.
        app: what tells the app from others: its import name and instance path.
    """

    def __init__(self, path: str | None, app: tuple[str, str]) -> None:
        self._own = path is None
        self.path = _default_path() if path is None else Path(path)
        parts = (MAGIC.decode(), str(_SIZE), _boot_id(), str(os.geteuid()), *app)
        self._app = _digest("\0".join(parts))

    def make(self) -> None:
        """Make sure that it is there, and nobody else's.

        Raises:
            UnsafeFile: it is another user's, open to others, or no directory.
            OSError: it cannot be made.
        """
        with suppress(FileExistsError):
            self.path.mkdir(0o700)
        status = self.path.lstat()
        # In a directory that was named on purpose others may read the names of files.
        forbidden = 0o077 if self._own else 0o022
        accepted = "a directory of this user's own that nobody else can write to"
        found = None
        if not stat.S_ISDIR(status.st_mode):
            found = "no directory"
        elif status.st_uid != os.geteuid():
            found = f"a directory of user {status.st_uid}"
        elif status.st_mode & forbidden:
            found = f"a directory with mode {stat.S_IMODE(status.st_mode):04o}"
        if found is not None:
            raise UnsafeFile(self.path, found, accepted)

    def file_of(self, limit: RateLimit) -> Path:
        """Return the path under which all processes look for a limit's file."""
        return self.path / f"{self._app}-{_digest(limit.key)}.limit"

    def files(self) -> Iterator[Path]:
        """Return the paths of the app's files, as far as there are any."""
        return self.path.glob(f"{self._app}-*.limit")

    def named(self, name: str) -> Path:
        """Return the path of another file of the app's."""
        return self.path / f"{self._app}-{name}"

    def files_named(self, pattern: str) -> Iterator[Path]:
        """Return the paths of the app's files with such names."""
        return self.path.glob(f"{self._app}-{pattern}")

    def build(self, limit: RateLimit, instead_of: int | None = None) -> int | None:
        """Build a limit's file and put it in its place.

        Args:
            limit: the limit.
            instead_of: the inode of a damaged file that it replaces.

        Returns:
            Its descriptor; `None` where another process was first.

        Raises:
            OSError: there is no space, or nothing may be written.
        """
        path = self.file_of(limit)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        self._clear_drafts(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask takes away
            allocate(descriptor, _SIZE)
            os.pwrite(descriptor, _header(limit), 0)
            if instead_of is None:
                os.link(draft, path)
            else:
                self._replace(path, instead_of, draft)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, FileExistsError | FileNotFoundError):
                return None  # somebody else's is there, or took the draft for abandoned
            raise
        finally:
            draft.unlink(missing_ok=True)
        return descriptor

    def _replace(self, path: Path, damaged: int, draft: Path) -> None:
        """Put a draft in the place of a damaged file.

        Without a lock two processes could find the same damaged file, and the slower one would
        replace the file in which the other counts already.

        Raises:
            FileExistsError: another process is at that, or was.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            if _inode(path) != damaged:
                raise FileExistsError
            os.rename(draft, path)
        except BlockingIOError:
            raise FileExistsError from None
        finally:
            os.close(descriptor)

    def _clear_drafts(self, path: Path) -> None:
        """Remove what builders left that were killed."""
        for draft in self.path.glob(f".{path.name}.*"):
            with suppress(OSError):
                if time.time() - draft.lstat().st_mtime > _ABANDONED:
                    draft.unlink()

    def check(self, path: Path, status: os.stat_result) -> None:
        """Hold a file to what one of ours is.

        Raises:
            UnsafeFile: it is anything else.
        """
        found = None
        if not stat.S_ISREG(status.st_mode):
            found = "no regular file"
        elif status.st_uid != os.geteuid():
            found = f"a file of user {status.st_uid}"
        elif stat.S_IMODE(status.st_mode) != 0o600:
            found = f"a file with mode {stat.S_IMODE(status.st_mode):04o}"
        elif status.st_nlink > 1 and not self._only_link(path):
            found = "a file with several names"
        if found is not None:
            raise UnsafeFile(path, found, "a regular file of this user's own, mode 0600, one name")

    def _only_link(self, path: Path) -> bool:
        """Tell whether a file's other name was but its builder's draft, and remove that."""
        status = path.lstat()
        for draft in self.path.glob(f".{path.name}.*"):
            with suppress(FileNotFoundError):
                if os.path.samestat(draft.lstat(), status):
                    draft.unlink()
        return path.lstat().st_nlink == 1


def read_header(descriptor: int) -> tuple[bytes, RateLimit] | None:
    """Return a file's hash key and its limit; `None` where it is no file of this form."""
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


def allocate(descriptor: int, size: int) -> None:
    """Give a file its size and the space for it, so that no later write can lack any."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.pwrite(descriptor, bytes(size), 0)


def _default_path() -> Path:
    in_memory = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    return (SHARED_MEMORY if in_memory else Path(tempfile.gettempdir())) / (
        f"flask-m9m-{os.geteuid()}"
    )


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeError):
        return ""


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None
