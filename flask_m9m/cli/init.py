"""`flask m9m init` and `flask m9m secret`: write a new app's settings and secrets."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Sequence, Set
from pathlib import Path

import click

from ..settings.files import read_dotenv
from ..settings.report import SourcesReport
from .output import fail

_DOTENV = Path(".env")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONFIG = """\
# Settings of flask-m9m. Every key, with its default: flask m9m config show
security:
  # Routes without @require_auth or @public: authenticated closes them, public opens them.
  default_access: authenticated
  jwt:
    secret: "${M9M_JWT_SECRET}"
    expiration: "24h"
  cors:
    # Origins whose pages may call this API, written as browsers send them.
    allowed_origins: []
    # - "https://app.example.com"

credentials:
  encryption_key: "${M9M_ENCRYPTION_KEY}"

performance:
  rate_limit:
    enabled: true
    requests_per_minute: 60
    burst: 10
"""

_VARIABLES = {"M9M_JWT_SECRET": 64, "M9M_ENCRYPTION_KEY": 32}
_IGNORED = (b".env", b"instance/")

_NEXT = """
next:
  flask m9m doctor         find security problems, each with its fix
  flask m9m serve --dev    serve the app on loopback, for development
  flask m9m serve          serve it with gunicorn (pip install 'flask-m9m[serve]')"""


def fresh_secret(size: int = 32) -> str:
    """Return random bytes in base64; 32 are enough for an encryption key or for HS256."""
    return base64.b64encode(secrets.token_bytes(size)).decode()


@click.command()
@click.option(
    "--bytes",
    "size",
    type=click.IntRange(32, 1024),
    default=32,
    show_default=True,
    help="Number of random bytes; HS384 needs 48, HS512 needs 64.",
)
@click.option(
    "--add",
    "name",
    metavar="NAME",
    help="Add it to .env under this name; print nothing.",
)
def secret(size: int, name: str | None) -> None:
    """Make a random secret; print it or add it to .env."""
    if name is None:
        click.echo(fresh_secret(size))
        return
    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            f"{name[:64]!a} is not a name: use letters, digits and _, no digit first"
        )
    if name in _names_in_dotenv():
        raise fail(f"{_DOTENV} already has {name}, and was not changed: remove that line first")
    _add_lines(_DOTENV, [f"{name}={fresh_secret(size)}".encode()], 0o600)
    click.echo(f"added {name} to {_DOTENV}")


@click.command()
def init() -> None:
    """Write .env, .gitignore and config.yaml for a new app.

    .env gets new secrets, and config.yaml has comments. Existing settings are not overwritten.
    """
    lines = "".join(f"{name}={fresh_secret(size)}\n" for name, size in _VARIABLES.items())
    if _create(_DOTENV, lines, 0o600):
        click.echo("wrote .env with new secrets: keep it out of version control, and back it up")
    else:
        click.echo(f"{_DOTENV} exists and was not changed")
        there = _names_in_dotenv()
        for name, size in _VARIABLES.items():
            if name not in there:
                command = f"flask m9m secret --bytes {size} --add {name}"
                click.echo(f"it has no {name}; to add it: {command}")
    _ignore()
    if _create(Path("config.yaml"), _CONFIG, 0o644):
        click.echo("wrote config.yaml")
    else:
        click.echo("config.yaml exists and was not changed")
    click.echo(_NEXT)


def _create(path: Path, text: str, mode: int) -> bool:
    """Create a file; return `False` if a file or a link of this name exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    except OSError as error:
        raise fail(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return True


def _names_in_dotenv() -> Set[str]:
    return read_dotenv(_DOTENV, str(_DOTENV), SourcesReport()).keys()


def _ignore() -> None:
    """Have git ignore `.env` and the instance folder, which contains the database."""
    file = Path(".gitignore")
    try:
        known = {line.strip().strip(b"/") for line in file.read_bytes().splitlines()}
    except OSError:
        known = set()
    missing = [line for line in _IGNORED if line.strip(b"/") not in known]
    if missing:
        named = " and ".join(line.decode() for line in missing)
        try:
            _add_lines(file, missing, 0o644)
        except click.ClickException as error:
            click.echo(f"{error.message}: add {named} to it yourself", err=True)
        else:
            click.echo(f"added {named} to {file}")


def _add_lines(path: Path, lines: Sequence[bytes], mode: int) -> None:
    """Append lines to a file; create it, and end its last line, where necessary.

    Raises:
        click.ClickException: the file cannot be written, or is a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(path, flags, mode), "r+b") as file:
            text = file.read()
            newline = b"" if not text or text.endswith(b"\n") else b"\n"
            file.write(newline + b"\n".join(lines) + b"\n")
    except OSError as error:
        raise fail(f"{path}: {error.strerror}") from None
