"""Command `flask m9m doctor`: examine the app, and print the findings and the score."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click
from flask.cli import ScriptInfo

from ...errors import SettingsError
from ...settings.sources import load
from ...settings.wording import printable
from ..config import settings_error
from ..output import log_nothing, output_option, print_document, state_of
from ..tables import indented, paint
from .examination import KINDS, NOT_LOADED, REFUSED, Report, examine, refusals, report
from .findings import Finding, Severity
from .subject import Subject

_NEVER_IGNORED = (REFUSED.id, NOT_LOADED.id)
_ID_WIDTH = max(len(kind.id) for kind in KINDS)


def _check_ids(context: click.Context, _: click.Parameter, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse ids that do not exist or cannot be ignored."""
    known = [kind.id for kind in KINDS]
    for given in ids:
        if given in _NEVER_IGNORED:
            raise click.BadParameter(f"{given} cannot be ignored: the app does not start", context)
        if given not in known:
            near = "".join(f"; did you mean {id}?" for id in get_close_matches(given, known, 1))
            raise click.BadParameter(f"unknown finding id {given[:64]!a}{near}", context)
    return ids


@click.command()
@click.option(
    "--level",
    type=click.Choice([severity.value for severity in reversed(Severity)]),
    default=Severity.LOW.value,
    show_default=True,
    help="Exit 1 on findings of this severity or above.",
)
@click.option(
    "--ignore",
    "ignored",
    metavar="ID",
    multiple=True,
    callback=_check_ids,
    help="Leave out findings with this id; may be repeated.",
)
@output_option
@click.pass_context
def doctor(context: click.Context, level: str, ignored: tuple[str, ...], output: str) -> None:
    """Find errors and risks in the app, each with a fix; exit 1 on findings."""
    # Warnings that the app logs while it loads are reported as findings.
    log_nothing(context)
    found = report(_findings(context), ignored)
    if output == "table":
        _print_report(found)
    else:
        print_document(_document(found), output)
    if found.at_least(Severity(level)):
        context.exit(1)


def _findings(context: click.Context) -> Iterable[Finding]:
    """Examine the app, or report why it cannot be loaded."""
    info = context.ensure_object(ScriptInfo)
    info.set_debug_flag = False  # the app's own flag, as other servers run it
    try:
        app = info.load_app()
    except click.ClickException:
        raise
    except Exception as error:
        if (cause := settings_error(error)) is not None:
            return refusals(cause.problems)
        shown = f"{type(error).__name__}: {printable(str(error))[:200]}".rstrip(": ")
        return [NOT_LOADED.at("the app", error=shown), *_problems_of_settings()]
    state = state_of(app)
    click.echo(printable(state.loaded.origin), err=True)
    with app.app_context():
        return tuple(examine(Subject(state)))


def _problems_of_settings() -> list[Finding]:
    """Report the problems of the settings that can be read without the app."""
    try:
        return refusals(load().idle)
    except SettingsError as error:
        return refusals(error.problems)


def _document(found: Report) -> dict[str, object]:
    return {
        "findings": [
            {
                "id": finding.id,
                "severity": finding.severity.value,
                "where": finding.where,
                "why": finding.why,
                "fix": finding.fix,
            }
            for finding in found.findings
        ],
        "score": found.score,
        "lost": [
            {"id": finding.id, "where": finding.where, "points": finding.severity.points}
            for finding in found.findings
        ],
        "ignored": list(found.ignored),
    }


def _print_report(found: Report) -> None:
    for finding in found.findings:
        severity = finding.severity.value
        painted = paint(f"{severity:<8}", "severity", severity)
        click.echo(f"{painted}  {finding.id:<{_ID_WIDTH}}  {printable(finding.where)}", color=True)
        for name, text in (("why: ", finding.why), ("fix: ", finding.fix)):
            click.echo(indented(printable(text), " " * 10 + name))
        click.echo()
    if any(finding.id in _NEVER_IGNORED for finding in found.findings):
        click.echo(
            "the app does not start: run this command again once it does, for the remaining checks"
        )
        click.echo()
    if found.findings:
        if any("{" in finding.fix for finding in found.findings):
            click.echo("YAML in a fix: if config.yaml has its section already, add to that section")
            click.echo()
        click.echo(f"score: {found.score} of 100; lost:")
        for finding in found.findings:
            click.echo(f"  {-finding.severity.points:>3}  {finding.id}: {printable(finding.where)}")
    else:
        click.echo("nothing found: score 100 of 100")
    if found.ignored:
        click.echo(f"ignored: {', '.join(found.ignored)}")
