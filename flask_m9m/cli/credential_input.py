"""Input of `flask m9m credential`: fields, JSON files and n8n's key, never from arguments."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from ..credentials.credentials import Credentials
from ..credentials.imports import LARGEST, contents, parsed
from ..errors import UnreadableImport
from ..extension.app_state import AppState
from .output import fail
from .tables import is_terminal

_VARIABLE = "N8N_ENCRYPTION_KEY"
_LONGEST_KEY = 4_096  # octets

data_option = click.option(
    "--data",
    metavar="@FILE",
    help="File with the fields as a JSON object; @- for standard input. By default they are read "
    "from standard input, or on a terminal by a prompt for each field that the type requires.",
)
key_file_option = click.option(
    "--key-file",
    metavar="FILE",
    help="File with n8n's instance key, readable by you alone, such as ~/.n8n/config; by default "
    f"the key is read from ${_VARIABLE} or by a prompt.",
)


def credentials_of(state: AppState) -> Credentials:
    """Return the app's credential store, if a command can share it.

    Raises:
        ClickException: the store is in memory, so that each process has its own.
    """
    if state.loaded.settings.credentials.storage == "memory":
        raise fail(
            "credentials.storage is memory, which commands do not share with the app: set it to "
            "database"
        )
    return state.credentials


def read_fields(argument: str | None, type: str, required: Sequence[str]) -> dict[str, Any]:
    """Read a credential's fields from the source that `--data` names, or by prompts.

    Raises:
        UsageError: the option is neither `@FILE` nor `@-`.
        ClickException: the source is not a JSON object.
    """
    if argument is None and is_terminal(sys.stdin):
        if not required:
            raise fail(
                f"the type {type} requires no fields, so none is asked for: give --data @FILE"
            )
        return {name: click.prompt(name, hide_input=True, err=True) for name in required}
    source = "@-" if argument in (None, "-") else str(argument)
    if not source.startswith("@"):
        raise click.UsageError(
            "--data must be @FILE or @-: others could read values in an argument"
        )
    found = read_json(source[1:])
    if not isinstance(found, dict):
        raise fail(f"{_source_name(source[1:])} must be a JSON object with the fields")
    return found


def read_json(path: str) -> object:
    """Read and decode a JSON file, or standard input for `-`.

    Raises:
        ClickException: it cannot be read, or is not JSON.
    """
    try:
        return parsed(_read_stdin() if path == "-" else contents(path), _source_name(path))
    except UnreadableImport as error:
        raise fail(str(error)) from None


def read_instance_key(path: str | None, *, confirm: bool) -> str:
    """Read n8n's instance key from a file, else from the environment, else by a prompt.

    Raises:
        ClickException: there is no key, or other users can read the file.
    """
    if path is not None:
        return _read_key_file(path)
    if key := os.environ.get(_VARIABLE):
        return key
    if not is_terminal(sys.stdin):
        raise fail(f"n8n's instance key is missing: give --key-file FILE, or set {_VARIABLE}")
    prompt = "Instance key of n8n"
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise UnreadableImport("standard input is closed")
    try:
        return sys.stdin.buffer.read(LARGEST + 1)
    except OSError as error:
        raise UnreadableImport(f"standard input: {error.strerror}") from None


def _read_key_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read(_LONGEST_KEY + 1)
    except (OSError, ValueError) as error:
        raise fail(
            f"{path!a}: {getattr(error, 'strerror', None) or 'this is not a path'}"
        ) from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise fail(f"other users can read {path!a}: chmod 600 it, and consider replacing the key")
    key = _key_in(octets) if len(octets) <= _LONGEST_KEY else ""
    if not key:
        raise fail(f"{path!a} has no instance key of n8n, a line of at most {_LONGEST_KEY} bytes")
    return key


def _key_in(octets: bytes) -> str:
    """Find the key in a file: the whole text, or `encryptionKey` in n8n's JSON `config`."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return ""
    if text.lstrip().startswith("{"):
        with suppress(UnreadableImport):
            config = parsed(octets, "")
            found = config.get("encryptionKey") if isinstance(config, dict) else None
            return found if isinstance(found, str) else ""
    return text.removesuffix("\n").removesuffix("\r")


def _source_name(path: str) -> str:
    return "standard input" if path == "-" else ascii(path)
