"""SharedDirectory: a directory for files that all processes of an app on one machine share.

Only the app's own user may write there: another user could plant files or change them. A file is
written as a draft under another name and then linked to its final name, so that no process sees
an incomplete file. A damaged file is replaced as a whole.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import sha256
from pathlib import Path

from ..errors import Problem

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a directory of this user is made there

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ABANDONED = 60  # seconds after which a draft's process is assumed to be dead


class UnsafeFile(OSError):
    """A file or directory that another user could have created, or could change.

    Attributes:
        problem: the same as a problem of the settings, for a `SettingsError`.
    """

    def __init__(self, path: Path, found: str, accepted: str) -> None:
        super().__init__(f"{path}: {found}; {accepted}")
        self.problem = Problem("performance.rate_limit.path", f"{path}, {found}", accepted)


class SharedDirectory:
    """A directory in which all processes of an app on this machine find the same files.

    The name of each file begins with a hash of the machine's boot, the user and the app.

    Args:
        path: `performance.rate_limit.path`; `None` for a directory of this user in shared memory,
            or among temporary files.
        app: identifies the app: its import name and instance path.

    Raises:
        OSError: no directory for temporary files was found.
    """

    def __init__(self, path: str | None, app: tuple[str, str]) -> None:
        self._is_default = path is None
        self.path = _default_path() if path is None else Path(path)
        self._prefix = digest(_boot_id(), str(os.geteuid()), *app)

    def make(self) -> None:
        """Create the directory if it is missing, and check that it is safe.

        Raises:
            UnsafeFile: it is another user's, other users can write to it, or it is not a directory.
            OSError: it cannot be created.
        """
        with suppress(FileExistsError):
            self.path.mkdir(0o700)
        status = self.path.lstat()
        # Others may list the files of a directory that the settings name.
        forbidden = 0o077 if self._is_default else 0o022
        accepted = "must be a directory of this user with mode 0700"
        found = None
        if not stat.S_ISDIR(status.st_mode):
            found = "not a directory"
        elif status.st_uid != os.geteuid():
            found = f"a directory of user {status.st_uid}"
        elif status.st_mode & forbidden:
            found = f"a directory with mode {stat.S_IMODE(status.st_mode):04o}"
        if found is not None:
            raise UnsafeFile(self.path, found, accepted)

    def path_of(self, name: str) -> Path:
        """Return the path of the app's file of this name."""
        return self.path / f"{self._prefix}-{name}"

    def paths(self, pattern: str) -> Iterator[Path]:
        """Return the paths of the app's files whose names match a pattern (`fnmatch`)."""
        return self.path.glob(f"{self._prefix}-{pattern}")

    def build(
        self, path: Path, fill: Callable[[int], None], instead_of: int | None = None
    ) -> int | None:
        """Create a complete file: fill a draft, then give it the file's name.

        Args:
            path: the file's path, from `path_of`.
            fill: writes the content to the draft's descriptor.
            instead_of: the inode of a damaged file to replace.

        Returns:
            The file's descriptor; `None` if another process was faster.

        Raises:
            OSError: no space is left, or the directory is not writable.
        """
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        self._clear_drafts(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # the umask may have removed bits
            fill(descriptor)
            if instead_of is None:
                os.link(draft, path)
            else:
                self._replace(path, instead_of, draft)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, FileExistsError | FileNotFoundError):
                return None  # another process built the file, or removed the draft as abandoned
            raise
        finally:
            draft.unlink(missing_ok=True)
        return descriptor

    def _replace(self, path: Path, damaged: int, draft: Path) -> None:
        """Put a draft in the place of a damaged file.

        Without a lock two processes could find the same damaged file. The slower one would then
        replace the new file of the faster one, which is in use already.

        Raises:
            FileExistsError: another process is replacing the file, or has replaced it.
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
        """Remove the drafts of processes that were killed."""
        for draft in self.path.glob(f".{path.name}.*"):
            with suppress(OSError):
                if time.time() - draft.lstat().st_mtime > _ABANDONED:
                    draft.unlink()

    def check(self, path: Path, status: os.stat_result) -> None:
        """Check that a file is a regular file that only this user can change.

        Raises:
            UnsafeFile: it is not.
        """
        found = None
        if not stat.S_ISREG(status.st_mode):
            found = "not a regular file"
        elif status.st_uid != os.geteuid():
            found = f"a file of user {status.st_uid}"
        elif stat.S_IMODE(status.st_mode) != 0o600:
            found = f"a file with mode {stat.S_IMODE(status.st_mode):04o}"
        elif status.st_nlink > 1 and not self._remove_draft_link(path):
            found = "a file with several names"
        if found is not None:
            raise UnsafeFile(path, found, "must be this user's regular file, mode 0600, one name")

    def _remove_draft_link(self, path: Path) -> bool:
        """Remove a file's second name if it is its draft; tell whether one name is left."""
        status = path.lstat()
        for draft in self.path.glob(f".{path.name}.*"):
            with suppress(FileNotFoundError):
                if os.path.samestat(draft.lstat(), status):
                    draft.unlink()
        return path.lstat().st_nlink == 1


def digest(*texts: str) -> str:
    """Return a hash of texts, 20 hexadecimal digits, for use in a file's name."""
    return sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def allocate(descriptor: int, size: int) -> None:
    """Give a file its size and reserve the space, so that no later write runs out of it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.pwrite(descriptor, bytes(size), 0)


def _default_path() -> Path:
    in_memory = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    parent = SHARED_MEMORY if in_memory else Path(tempfile.gettempdir())
    return parent / f"flask-m9m-{os.geteuid()}"


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeError):
        return ""


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None
