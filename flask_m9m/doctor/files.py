"""Checks of the files that hold secrets: how old they are, who can read them, and what git does."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from .findings import Finding, Kind, Severity
from .secret_sources import secret_origins
from .subject import Subject, finds

OLD = Kind(
    "secret-old",
    Severity.LOW,
    "a file that holds secrets has not changed for a year",
    "a secret that never changes is known to everybody who ever had it (ASVS 13.3.4)",
    "list <path> in <previous> and put a fresh one in its place (flask m9m secret); "
    "for stored credentials: flask m9m credential rotate",
)
TRACKED = Kind(
    "secret-tracked",
    Severity.HIGH,
    "git tracks a file that holds secrets",
    "everybody who has the repository has them, also once they are deleted (ASVS 13.3.1)",
    "<untrack>; commit, and replace what stays in the history: the secret of tokens at once; an "
    "encryption key goes into credentials.previous_keys first, then: flask m9m credential rotate",
)
DATABASE_TRACKED = Kind(
    "database-tracked",
    Severity.HIGH,
    "git tracks a file of SQLite's database",
    "everybody who has the repository has its password hashes, names and sealed credentials (ASVS "
    "13.3.1)",
    "<untrack>; commit; the history keeps it: have passwords changed, and rotate API keys",
)
UNIGNORED = Kind(
    "secret-unignored",
    Severity.LOW,
    "git does not ignore a file that holds secrets, or the database",
    "the next git add that names no files takes it in, for everybody who has the repository (ASVS "
    "13.3.1)",
    "<ignore>",
)
READABLE = Kind(
    "secret-readable",
    Severity.MEDIUM,
    "other users of the machine can read or write a file that holds secrets",
    "each of them can sign tokens and open stored credentials (ASVS 13.3.2)",
    "chmod 600 <file>",
)

_YEAR = 365 * 86_400.0
_GIT_SECONDS = 2.0
_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")
_MOVED_OUT = "have it refer to a variable, as secret-in-plain says"
_MOUNTED = (Path("/run/secrets"), Path("/var/run/secrets"))  # a container's own
_PREVIOUS = {
    "security.jwt.secret": "security.jwt.previous_secrets",
    "credentials.encryption_key": "credentials.previous_keys",
}


@finds(OLD)
def old_secrets(subject: Subject) -> Iterator[Finding]:
    """Look when the file of each secret last changed."""
    for origin in secret_origins(subject):
        if origin.path in _PREVIOUS and origin.file is not None:
            status = _status(origin.file)
            if status is not None and subject.now - status.st_mtime > _YEAR:
                where = f"{origin.path} ({_shown(origin.file, subject)})"
                yield OLD.at(where, path=origin.path, previous=_PREVIOUS[origin.path])


@finds(TRACKED, DATABASE_TRACKED, UNIGNORED)
def secrets_in_git(subject: Subject) -> Iterator[Finding]:
    """Ask git what it does with the files with secrets, and with those of the database."""
    plain = {origin.file for origin in secret_origins(subject) if origin.plain}
    for file in _secret_files(subject):
        untrack, ignore = _remedies(file, file.name, subject)
        if _is_tracked(file):
            yield TRACKED.at(
                _shown(file, subject), untrack=_MOVED_OUT if file in plain else untrack
            )
        elif file not in plain and _is_unignored(file):
            yield UNIGNORED.at(_shown(file, subject), ignore=ignore)
    database = subject.sqlite_file
    if database is not None and database.is_file():
        files = [database.with_name(database.name + suffix) for suffix in _SQLITE_SUFFIXES]
        untrack, ignore = _remedies(database, f"{database.name}*", subject)
        if tracked := [file for file in files if _is_tracked(file)]:
            yield DATABASE_TRACKED.at(_shown(tracked[0], subject), untrack=untrack)
        elif unignored := [file for file in files if _is_unignored(file)]:
            yield UNIGNORED.at(_shown(unignored[0], subject), ignore=ignore)


@finds(READABLE)
def readable_secrets(subject: Subject) -> Iterator[Finding]:
    """Look who may read the files with secrets."""
    for file in _secret_files(subject):
        status = _status(file)
        if status is None or any(place in file.parents for place in _MOUNTED):
            continue
        if stat.S_IMODE(status.st_mode) & 0o006:
            yield READABLE.at(_shown(file, subject), file=_argument(file, subject))


CHECKS = (old_secrets, secrets_in_git, readable_secrets)


def _secret_files(subject: Subject) -> Iterable[Path]:
    """Return the files that hold secrets, each once."""
    return dict.fromkeys(one.file for one in secret_origins(subject) if one.file is not None)


def _remedies(file: Path, pattern: str, subject: Subject) -> tuple[str, str]:
    """Return the commands that have git forget files, and ignore them."""
    folder, names = _shown(file.parent, subject), shlex.quote(pattern)
    there = "" if folder == "." else f" -C {shlex.quote(folder)}"
    gitignore = shlex.quote(_shown(file.parent / ".gitignore", subject))
    # A line of its own also where the last one there is not ended.
    ignore = f"printf '\\n%s\\n' {names} >> {gitignore}"
    return f"git{there} rm --cached --force -- {names} && {ignore}", ignore


def _is_tracked(file: Path) -> bool:
    return _git(file, "ls-files", "--error-unmatch") == 0


def _is_unignored(file: Path) -> bool:
    """Tell whether git would take a file in; false where there is no git."""
    return _git(file, "check-ignore", "--quiet") == 1


def _git(file: Path, *command: str) -> int | None:
    """Ask git about a file; return how it exits, or `None` where it cannot be asked."""
    git = shutil.which("git")
    if git is None or not file.parent.is_dir():
        return None
    whole = [git, "-C", str(file.parent), *command, "--", f"./{file.name}"]
    try:
        return subprocess.run(whole, capture_output=True, timeout=_GIT_SECONDS).returncode  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _shown(file: Path, subject: Subject) -> str:
    return str(file.relative_to(subject.folder) if file.is_relative_to(subject.folder) else file)


def _argument(file: Path, subject: Subject) -> str:
    return shlex.quote(_shown(file, subject))
