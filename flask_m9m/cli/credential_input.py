"""What `flask m9m credential …` reads: the store, values and keys, none of them an argument."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from ..credentials import Credentials
from ..credentials.imports import LARGEST, contents, parsed
from ..errors import UnreadableImport
from ..state import AppState
from .output import fail, is_terminal

_VARIABLE = "N8N_ENCRYPTION_KEY"
_LONGEST_KEY = 4_096  # octets

data_option = click.option(
    "--data",
    metavar="@FILE",
    help="A file with the fields as a JSON object, @- for standard input; left out, they come from "
    "standard input, or on a terminal by a prompt for each that the type needs.",
)
key_file_option = click.option(
    "--key-file",
    metavar="FILE",
    help="The instance key of n8n, in a file of yours alone, ~/.n8n/config say; left out, "
    f"${_VARIABLE} or a prompt.",
)


def credentials_of(state: AppState) -> Credentials:
    """Return the app's store, if a command can share it.

    Raises:
        ClickException: each process has one of its own.
    """
    if state.loaded.settings.credentials.storage == "memory":
        raise fail("credentials.storage is memory, which no command shares with the app")
    return state.credentials


def read_fields(argument: str | None, type: str, required: Sequence[str]) -> dict[str, Any]:
    """Return a credential's fields, from where `--data` says.

    Raises:
        UsageError: the option is neither a file nor standard input.
        ClickException: what is there is no JSON object.
    """
    if argument is None and is_terminal(sys.stdin):
        if not required:
            raise fail(f"the type {type} asks for no fields: give --data @FILE")
        return {name: click.prompt(name, hide_input=True, err=True) for name in required}
    source = "@-" if argument in (None, "-") else str(argument)
    if not source.startswith("@"):
        raise click.UsageError("values are no argument, which others could read: --data @FILE")
    found = read_json(source[1:])
    if not isinstance(found, dict):
        raise fail(f"{_origin(source[1:])} is no JSON object with the fields")
    return found


def read_json(path: str) -> object:
    """Return what a JSON file says, or standard input for `-`.

    Raises:
        ClickException: it cannot be read, or is none.
    """
    try:
        return parsed(_read_stdin() if path == "-" else contents(path), _origin(path))
    except UnreadableImport as error:
        raise fail(str(error)) from None


def read_instance_key(path: str | None, *, confirm: bool) -> str:
    """Return the instance key of n8n: from a file, else the environment, else a prompt.

    Raises:
        ClickException: there is none, or others can read the file.
    """
    if path is not None:
        return _read_key_file(path)
    if key := os.environ.get(_VARIABLE):
        return key
    if not is_terminal(sys.stdin):
        raise fail(f"n8n's instance key is needed: give --key-file, or set {_VARIABLE}")
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
        raise fail(f"{path!a}: {getattr(error, 'strerror', None) or 'this is no path'}") from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise fail(f"{path!a} is open to others: chmod 600, and think about a new key")
    key = _key_in(octets) if len(octets) <= _LONGEST_KEY else ""
    if not key:
        raise fail(f"{path!a} is no instance key: one line of at most {_LONGEST_KEY} octets")
    return key


def _key_in(octets: bytes) -> str:
    """Return the key in a file of its own, or in n8n's `config`, whose JSON has it."""
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


def _origin(path: str) -> str:
    return "standard input" if path == "-" else ascii(path)
