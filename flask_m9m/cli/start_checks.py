"""Checks at the start: the database has our tables, and the settings the keys that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ..credentials.encryption.cipher import key_id_of
from ..errors import DatabaseUnavailable, Problem, SchemaError, SettingsError
from ..extension.app_state import AppState
from ..extension.model_columns import find_columns, missing_keys
from ..settings.wording import printable
from .doctor.backends import within
from .output import fail

_SECONDS = 10.0  # a column of millions of values takes longer to count


def check_database(state: AppState) -> None:
    """Check that the tables of a server exist and are of this version, or upgrade them.

    A server that does not answer yet is named: requests that need it are 503 until it does.

    Raises:
        ClickException: the tables cannot be used; the message has the command that mends it.
    """
    if state.database.local and not state.shares_database:
        return
    try:
        within(_SECONDS, state.database.require_schema)
    except SchemaError as error:
        raise fail(printable(str(error))) from None
    except TimeoutError:
        _warn(f"the database does not answer within {_SECONDS:g} s")
    except DatabaseUnavailable as error:
        if error.reason.startswith("database.url"):  # a driver that is missing, or a wrong URL
            raise fail(printable(error.reason)) from None
        _warn(str(error))


def _warn(reason: str) -> None:
    click.echo(
        f"{printable(reason)}: requests that need it are answered with 503 until it is there",
        err=True,
    )


def check_keys(state: AppState) -> None:
    """Check that the settings list the keys of credentials, the audit trail and encrypted columns.

    What a database does not tell in time is named, and checked when it is used.

    Raises:
        SettingsError: a key is missing.
    """
    problems = [
        *_within_time(lambda: _key_problems(state), "stored credentials and the audit trail"),
        *_within_time(lambda: missing_keys(find_columns(state).found), "encrypted columns"),
    ]
    if problems:
        raise SettingsError(problems)


def _within_time(find: Callable[[], Sequence[Problem]], what: str) -> Sequence[Problem]:
    try:
        return within(_SECONDS, find)
    except SettingsError as error:
        return error.problems
    except TimeoutError:
        reason = f"it takes longer than {_SECONDS:g} s"
    except DatabaseUnavailable as error:
        reason = printable(str(error))
    click.echo(f"the encryption keys of {what} are not checked: {reason}", err=True)
    return ()


def _key_problems(state: AppState) -> Sequence[Problem]:
    if state.loaded.settings.credentials.storage != "database":
        return ()
    _, version, newest = state.database.status()
    if version != newest:
        return ()  # nothing is stored yet, or nothing can be read before an upgrade
    seals, trail = state.database.read(
        lambda transaction: (transaction.credentials.seals(), transaction.audit.key())
    )
    if seals:
        state.credentials.check_keys()
    key_id = key_id_of(trail)
    if key_id is None or key_id in state.cipher.keys.ids:
        return ()
    found = f"the audit trail needs the key {key_id}, which is not there"
    accepted = "list it under credentials.previous_keys"
    return [Problem("credentials.encryption_key", found, accepted)]
