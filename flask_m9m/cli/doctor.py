"""`flask m9m doctor`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import get_close_matches

import click
from flask.cli import ScriptInfo

from ..doctor import (
    KINDS,
    NOT_LOADED,
    REFUSED,
    Finding,
    Report,
    Severity,
    Subject,
    examine,
    refusals,
    report,
)
from ..errors import SettingsError
from ..settings import load
from ..text import printable
from .config import settings_error
from .output import output_option, print_document, state_of

_NEVER_IGNORED = (REFUSED.id, NOT_LOADED.id)
_ID_WIDTH = max(len(kind.id) for kind in KINDS)


def _known_ids(context: click.Context, _: click.Parameter, ids: tuple[str, ...]) -> tuple[str, ...]:
    known = [kind.id for kind in KINDS]
    for one in ids:
        if one in _NEVER_IGNORED:
            raise click.BadParameter(f"{one} cannot be ignored: nothing works with it", context)
        if one not in known:
            near = "".join(f"; did you mean {id}?" for id in get_close_matches(one, known, 1))
            raise click.BadParameter(f"there is no finding {one[:64]!a}{near}", context)
    return ids


@click.command()
@click.option(
    "--level",
    type=click.Choice([one.value for one in reversed(Severity)]),
    default=Severity.LOW.value,
    show_default=True,
    help="Exit 1 on findings from this severity on.",
)
@click.option(
    "--ignore",
    "ignored",
    metavar="ID",
    multiple=True,
    callback=_known_ids,
    help="Pass findings of this id over; may be repeated.",
)
@output_option
@click.pass_context
def doctor(context: click.Context, level: str, ignored: tuple[str, ...], output: str) -> None:
    """Look for what is wrong or risky, and say what mends it; exit 1 on findings."""
    # What loading an app logs is found here, too.
    logging.getLogger("flask_m9m").disabled = True
    found = report(_findings(context), ignored)
    if output == "table":
        _print_report(found)
    else:
        print_document(_document(found), output)
    if found.at_least(Severity(level)):
        context.exit(1)


def _findings(context: click.Context) -> Iterable[Finding]:
    """Examine the app, or say what keeps it from being loaded."""
    info = context.ensure_object(ScriptInfo)
    info.set_debug_flag = False  # what the app says itself is what other servers run it with
    try:
        app = info.load_app()
    except click.ClickException:
        raise
    except Exception as error:
        if (cause := settings_error(error)) is not None:
            return refusals(cause.problems)
        return [NOT_LOADED.at("the app", error=type(error).__name__), *_problems()]
    state = state_of(app)
    files = ", ".join(str(file) for file in state.loaded.files) or "no file"
    click.echo(f"settings read from {printable(files)}", err=True)
    with app.app_context():
        return tuple(examine(Subject(state)))


def _problems() -> list[Finding]:
    """Return what is wrong with the settings that can be read without the app."""
    try:
        load()
    except SettingsError as error:
        return refusals(error.problems)
    return []


def _document(found: Report) -> dict[str, object]:
    return {
        "findings": [
            {
                "id": one.id,
                "severity": one.severity.value,
                "where": one.where,
                "why": one.why,
                "fix": one.fix,
            }
            for one in found.findings
        ],
        "score": found.score,
        "lost": [
            {"id": one.id, "where": one.where, "points": one.severity.points}
            for one in found.findings
        ],
        "ignored": list(found.ignored),
    }


def _print_report(found: Report) -> None:
    for one in found.findings:
        click.echo(f"{one.severity.value:<8}  {one.id:<{_ID_WIDTH}}  {printable(one.where)}")
        click.echo(f"          why: {printable(one.why)}")
        click.echo(f"          fix: {printable(one.fix)}")
        click.echo()
    if any(one.id in _NEVER_IGNORED for one in found.findings):
        click.echo("the app does not start: the rest is looked at once it does")
        click.echo()
    if found.findings:
        if any("{" in one.fix for one in found.findings):
            click.echo("where config.yaml has a section already, what a fix says belongs into that")
            click.echo()
        click.echo(f"score: {found.score} of 100; lost:")
        for one in found.findings:
            click.echo(f"  {-one.severity.points:>3}  {one.id}: {printable(one.where)}")
    else:
        click.echo("nothing found: score 100 of 100")
    if found.ignored:
        click.echo(f"ignored: {', '.join(found.ignored)}")
