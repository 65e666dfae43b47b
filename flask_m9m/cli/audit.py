"""`flask m9m audit`: list and verify the database's audit trail, without trusting its rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from ..audit.chain import Anchor
from ..audit.events import EventName, Recorded, written
from ..audit.verification import Verification
from ..extension.app_state import AppState
from ..settings.durations import parse_duration
from ..settings.wording import printable
from ..storage.records import AuditSearch, moment
from .output import (
    fail,
    output_option,
    print_document,
    print_rows,
    progress_bar,
    refusals,
    with_app,
)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_SWITCH_ON = (
    "the database keeps no audit trail; to keep one, set audit: {sinks: [log, database]} in "
    "config.yaml"
)
_UNIT = re.compile(r".*[0-9](d|h|m|s|ms)", re.DOTALL)
_LEAST_WANTED = ("details", "target", "scheme", "method", "route")
_WIDEST = 255  # characters of a table's cell
_NESTED = 100  # arrays and objects in details; with more, details are printed as a text


def _moment(
    context: click.Context, parameter: click.Parameter, typed: str | None
) -> datetime | None:
    """Parse a time, or a duration back from now."""
    if typed is None:
        return None
    try:
        if _UNIT.fullmatch(typed.strip()):
            return datetime.now(UTC) - timedelta(seconds=parse_duration(typed))
        found = datetime.fromisoformat(typed.strip())
    except ValueError:
        raise click.BadParameter(
            f"{typed[:64]!a} is neither a time (2026-01-31T12:00:00+01:00, or without a zone for "
            "UTC) nor a duration back from now (24h, 7d)"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _anchor(context: click.Context, parameter: click.Parameter, typed: str | None) -> str | None:
    try:
        return None if typed is None else str(Anchor.parse(typed))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _limited(command: Decorated) -> Decorated:
    most = click.IntRange(1, 10_000)
    return click.option(
        "--limit",
        type=most,
        default=100,
        show_default=True,
        metavar="N",
        help="Largest number of events.",
    )(command)


@click.group()
def audit() -> None:
    """List and verify the audit trail in the database."""


@audit.command("list")
@click.option(
    "--since",
    metavar="TIME|DURATION",
    callback=_moment,
    help="Only events at or after this time: ISO 8601, UTC if it has no zone, or a duration back "
    "from now (24h, 7d).",
)
@click.option(
    "--until",
    metavar="TIME|DURATION",
    callback=_moment,
    help="Only events before this time, in the same forms.",
)
@click.option("--subject", help="Only events of this subject, authenticated or claimed.")
@click.option("--event", help="Only events of this name.")
@click.option("--address", help="Only events from this client address.")
@click.option("--target", help="Only events of the credential, API key or token of this id.")
@_limited
@output_option
@with_app
@refusals
def list_events(
    state: AppState,
    since: datetime | None,
    until: datetime | None,
    subject: str | None,
    event: str | None,
    address: str | None,
    target: str | None,
    limit: int,
    output: str,
) -> None:
    """List events, the newest first, without verifying them."""
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")
    sought = AuditSearch(
        _microseconds(since),
        _microseconds(until),
        _as_stored(subject),
        _as_stored(event),
        _as_stored(address),
        _as_stored(target),
    )
    found = _print_events(state, sought, limit, output)
    own = [name.value for name in EventName]
    if event is not None and not found and event not in own:
        for near in get_close_matches(event, own, 1):
            click.echo(f"no event has the name {event[:64]!a}; did you mean {near}?", err=True)


@audit.command()
@click.option(
    "--anchor",
    metavar="SEQ:MAC",
    callback=_anchor,
    help="A row that you noted earlier, which must still be there.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format."
)
@with_app
@refusals
def verify(state: AppState, anchor: str | None, output: str) -> None:
    """Verify every row of the trail, and print its head.

    Keep the head elsewhere, and give it as --anchor later. If any row was changed, removed, added
    or moved, print a line for each problem and exit 1.
    """
    if not _is_on(state) and not _has_rows(state):
        raise fail(_SWITCH_ON)
    with progress_bar("verifying") as progress:
        found = state.trail.verify(anchor, progress)
    _print_verification(found, anchor, output)
    if not found.holds:
        raise click.exceptions.Exit(1)


@click.command("audit")
@click.argument("credential_id", metavar="ID")
@_limited
@output_option
@with_app
@refusals
def audit_of_credential(state: AppState, credential_id: str, limit: int, output: str) -> None:
    """List the audit events of a credential, also of a deleted one, the newest first."""
    _print_events(state, AuditSearch(target=_as_stored(credential_id)), limit, output)


def _print_verification(found: Verification, anchor: str | None, output: str) -> None:
    head = None if found.head is None else str(found.head)
    if output == "json":
        document = {
            "holds": found.holds,
            "rows": found.rows,
            "head": head,
            "problems": list(found.problems),
        }
        print_document(document, output)
        return
    click.echo(f"rows  {found.rows}")
    click.echo(f"head  {head or '-'}")
    if anchor is not None and found.holds:
        click.echo("the anchor matches")
    for problem in found.problems:
        click.echo(printable(problem), err=True)


def _print_events(
    state: AppState, sought: AuditSearch, limit: int, output: str
) -> Sequence[Sequence[Any]]:
    is_on = _is_on(state)
    found: Sequence[Sequence[Any]] = []
    if state.database.present():
        found = state.database.read(lambda rows: rows.audit.newest(sought, limit))
    if not is_on and not found and not _has_rows(state):
        raise fail(_SWITCH_ON)
    if not is_on:
        click.echo(f"these events are old: {_SWITCH_ON}", err=True)
    if not found and output == "table":
        click.echo("no events found", err=True)
    print_rows([_row(row, as_text=output == "table") for row in found], output, _LEAST_WANTED)
    return found


def _is_on(state: AppState) -> bool:
    settings = state.loaded.settings.audit
    return settings.enabled and "database" in settings.sinks


def _has_rows(state: AppState) -> bool:
    database = state.database
    return database.present() and database.read(lambda rows: rows.audit.last()) is not None


def _row(row: Sequence[Any], *, as_text: bool) -> dict[str, Any]:
    """Make the printed form of a row, whose values may be of any type."""
    seq, at, *values, details, _ = row
    members = (seq, _time(at), *values, details if as_text else _parsed(details))
    shown = {name: _plain(value) for name, value in zip(Recorded._fields, members, strict=True)}
    if as_text:
        del shown["request_id"]  # the table is wide enough without it
        return {name: _cut(value) for name, value in shown.items()}
    return shown


def _time(at: Any) -> Any:
    try:
        return moment(at / 1_000_000).isoformat(timespec="milliseconds")
    except (TypeError, ValueError, OverflowError, OSError):
        return at


def _parsed(details: Any) -> Any:
    """Decode details to a JSON object; return anything else unchanged."""
    if not isinstance(details, str) or details.count("[") + details.count("{") > _NESTED:
        return details
    try:
        found = json.loads(details, parse_constant=_no_constant)
    except ValueError:
        return details
    return found if isinstance(found, dict) else details


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    return value if value is None or type(value) in (int, str, dict) else str(value)


def _cut(value: Any) -> Any:
    text = value if value is None else str(value)
    return text if text is None or len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _microseconds(given: datetime | None) -> int | None:
    return None if given is None else round(given.timestamp() * 1_000_000)


def _as_stored(typed: str | None) -> str | None:
    """Return a text in its stored form, so that it compares equal to the rows."""
    return None if typed is None else written(typed, 255)
