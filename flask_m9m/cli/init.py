"""`flask m9m init` and `flask m9m secret`."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import click

from .output import fail

_CONFIG = """\
# Settings of flask-m9m. Every key, with its default: flask m9m config show
security:
  # Every route needs @require_auth or @public; with "public" a forgotten mark leaves it open.
  default_access: authenticated
  jwt:
    secret: "${M9M_JWT_SECRET}"
    expiration: "24h"
  cors:
    # Origins whose pages may call this API, as browsers send them.
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

_IGNORED = (b".env", b"instance/")

_NEXT = """
next:
  flask m9m doctor         what is still to mend, each with its fix
  flask m9m serve --dev    the app, on loopback, while you write it
  flask m9m serve          the same with gunicorn (pip install 'flask-m9m[serve]')"""


def fresh_secret(size: int = 32) -> str:
    """Return random bytes in base64: 32 are an encryption key, or a secret for HS256."""
    return base64.b64encode(secrets.token_bytes(size)).decode()


@click.command()
@click.option(
    "--bytes",
    "size",
    type=click.IntRange(32, 1024),
    default=32,
    show_default=True,
    help="How many are random; HS384 and HS512 need 48 and 64.",
)
def secret(size: int) -> None:
    """Print a fresh secret or encryption key."""
    click.echo(fresh_secret(size))


@click.command()
def init() -> None:
    """Write .env with fresh secrets, .gitignore and a commented config.yaml; overwrite nothing."""
    variables = {"M9M_JWT_SECRET": 64, "M9M_ENCRYPTION_KEY": 32}
    lines = "".join(f"{name}={fresh_secret(size)}\n" for name, size in variables.items())
    if not _create(Path(".env"), lines, 0o600):
        raise fail(
            ".env exists and was left as it is; nothing was written. Add "
            f"{' and '.join(variables)} to it yourself: flask m9m secret prints a fresh one"
        )
    click.echo("wrote .env with fresh secrets: keep it out of version control, and back it up")
    _ignore()
    if _create(Path("config.yaml"), _CONFIG, 0o644):
        click.echo("wrote config.yaml")
    else:
        click.echo("config.yaml exists and was left as it is")
    click.echo(_NEXT)


def _create(path: Path, text: str, mode: int) -> bool:
    """Write a new file; return false where there is one, or a link, already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    except OSError as error:
        raise fail(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return True


def _ignore() -> None:
    """See to it that git ignores `.env`, and the instance folder, where the database lies."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(".gitignore", flags, 0o644), "r+b") as file:
            text = file.read()
            known = {line.strip().strip(b"/") for line in text.splitlines()}
            missing = [line for line in _IGNORED if line.strip(b"/") not in known]
            if missing:
                newline = b"" if not text or text.endswith(b"\n") else b"\n"
                file.write(newline + b"\n".join(missing) + b"\n")
    except OSError as error:
        click.echo(f".gitignore: {error.strerror}: add {_names(_IGNORED)} to it yourself", err=True)
    else:
        if missing:
            click.echo(f"added {_names(missing)} to .gitignore")


def _names(lines: Iterable[bytes]) -> str:
    return " and ".join(line.decode() for line in lines)
