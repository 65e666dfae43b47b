"""Checks of secret files: their age, their permissions, and whether git tracks or ignores them."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from .findings import Finding, Kind, Severity
from .secret_sources import secret_sources
from .subject import Subject, finds

OLD = Kind(
    "secret-old",
    Severity.LOW,
    "a file that holds a secret has not changed for a year",
    "the secret has not changed for a year: everyone who ever had it can still use it (ASVS "
    "13.3.4)",
    "move the value of <path> to <previous>, and set <path> to a new secret, which this prints: "
    "flask m9m secret; after a change of the encryption key: flask m9m credential rotate",
)
TRACKED = Kind(
    "secret-tracked",
    Severity.HIGH,
    "git tracks a file that holds secrets",
    "git tracks the file: everyone with the repository can read its secrets, from the history even "
    "after they are deleted (ASVS 13.3.1)",
    "<untrack>; commit, and replace every secret that stays in the history: the token secret at "
    "once; for an encryption key, move the old key to credentials.previous_keys first, set a new "
    "key, then: flask m9m credential rotate",
)
DATABASE_TRACKED = Kind(
    "database-tracked",
    Severity.HIGH,
    "git tracks a file of the SQLite database",
    "git tracks the database: everyone with the repository has its password hashes, user names and "
    "encrypted credentials (ASVS 13.3.1)",
    "<untrack>; commit; the history keeps the file: have users change their passwords, and replace "
    "each API key: flask m9m apikey rotate ID",
)
UNIGNORED = Kind(
    "secret-unignored",
    Severity.LOW,
    "git does not ignore a file that holds secrets, or the database",
    "git does not ignore the file: git add . puts it into the repository, where everyone with "
    "access can read it (ASVS 13.3.1)",
    "<ignore>",
)
READABLE = Kind(
    "secret-readable",
    Severity.MEDIUM,
    "other users of the machine can read or write a file that holds secrets",
    "other users of the machine can read or write the file: with its secrets they can sign tokens "
    "and decrypt stored credentials (ASVS 13.3.2)",
    "chmod 600 <file>",
)

_YEAR = 365 * 86_400.0
_GIT_SECONDS = 2.0
_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")
_MOVE_OUT = "replace the secret by a variable, as the fix of secret-in-plain shows"
_MOUNTED = (Path("/run/secrets"), Path("/var/run/secrets"))  # mounted by container runtimes
_PREVIOUS = {
    "security.jwt.secret": "security.jwt.previous_secrets",
    "credentials.encryption_key": "credentials.previous_keys",
}


@finds(OLD)
def old_secrets(subject: Subject) -> Iterator[Finding]:
    """Find secrets whose file has not changed for a year."""
    for source in secret_sources(subject):
        if source.path in _PREVIOUS and source.file is not None:
            status = _status(source.file)
            if status is not None and subject.now - status.st_mtime > _YEAR:
                where = f"{source.path} ({_relative(source.file, subject)})"
                yield OLD.at(where, path=source.path, previous=_PREVIOUS[source.path])


@finds(TRACKED, DATABASE_TRACKED, UNIGNORED)
def secrets_in_git(subject: Subject) -> Iterator[Finding]:
    """Ask git whether it tracks or ignores the secret files and the database."""
    plain = {source.file for source in secret_sources(subject) if source.plain}
    for file in _secret_files(subject):
        untrack, ignore = _remedies(file, file.name, subject)
        if _is_tracked(file):
            yield TRACKED.at(
                _relative(file, subject), untrack=_MOVE_OUT if file in plain else untrack
            )
        elif file not in plain and _is_unignored(file):
            yield UNIGNORED.at(_relative(file, subject), ignore=ignore)
    database = subject.sqlite_file
    if database is not None and database.is_file():
        files = [database.with_name(database.name + suffix) for suffix in _SQLITE_SUFFIXES]
        untrack, ignore = _remedies(database, f"{database.name}*", subject)
        if tracked := [file for file in files if _is_tracked(file)]:
            yield DATABASE_TRACKED.at(_relative(tracked[0], subject), untrack=untrack)
        elif unignored := [file for file in files if _is_unignored(file)]:
            yield UNIGNORED.at(_relative(unignored[0], subject), ignore=ignore)


@finds(READABLE)
def readable_secrets(subject: Subject) -> Iterator[Finding]:
    """Find secret files that other users of the machine can read or write."""
    for file in _secret_files(subject):
        status = _status(file)
        if status is None or any(folder in file.parents for folder in _MOUNTED):
            continue
        if stat.S_IMODE(status.st_mode) & 0o006:
            yield READABLE.at(_relative(file, subject), file=_quoted(file, subject))


CHECKS = (old_secrets, secrets_in_git, readable_secrets)


def _secret_files(subject: Subject) -> Iterable[Path]:
    """List the files that hold secrets, without duplicates."""
    return dict.fromkeys(
        source.file for source in secret_sources(subject) if source.file is not None
    )


def _remedies(file: Path, pattern: str, subject: Subject) -> tuple[str, str]:
    """Make the shell commands that untrack files in git, and that ignore them.

    Args:
        file: the file, for its folder.
        pattern: the file's name, or a pattern for all files of a database.
        subject: the app, for the folder that paths are relative to.
    """
    folder, names = _relative(file.parent, subject), shlex.quote(pattern)
    option = "" if folder == "." else f" -C {shlex.quote(folder)}"
    gitignore = shlex.quote(_relative(file.parent / ".gitignore", subject))
    # The leading newline ends a last line that lacks its own.
    ignore = f"printf '\\n%s\\n' {names} >> {gitignore}"
    return f"git{option} rm --cached --force -- {names} && {ignore}", ignore


def _is_tracked(file: Path) -> bool:
    return _git(file, "ls-files", "--error-unmatch") == 0


def _is_unignored(file: Path) -> bool:
    """Tell whether git would add a file; false without git or a repository."""
    return _git(file, "check-ignore", "--quiet") == 1


def _git(file: Path, *command: str) -> int | None:
    """Run a git command on a file; return its exit code, or `None` if it cannot run."""
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


def _relative(file: Path, subject: Subject) -> str:
    return str(file.relative_to(subject.folder) if file.is_relative_to(subject.folder) else file)


def _quoted(file: Path, subject: Subject) -> str:
    return shlex.quote(_relative(file, subject))
