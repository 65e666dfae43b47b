"""`flask m9m routes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import click

from ..policy import FLASK, SETTINGS, Access, RoutePolicy
from ..ratelimit import RateLimit
from ..state import AppState
from ..text import printable
from .output import output_option, print_rows, with_app

_REMEDIES = {
    "undecided": "mark them with @require_auth or @public",
    "public": "anybody reaches them without a credential; --allow those that should be",
}


@click.command()
@click.option(
    "--fail-on",
    type=click.Choice(list(_REMEDIES)),
    multiple=True,
    help="Exit 1 if there is such a route: one that only the settings' default decides, or one "
    "of the app's that anybody reaches without a credential. May be given twice.",
)
@click.option(
    "--allow",
    metavar="ENDPOINT",
    multiple=True,
    help="An endpoint, or a pattern of them, that may be public. May be repeated.",
)
@output_option
@with_app
def routes(state: AppState, fail_on: Sequence[str], allow: Sequence[str], output: str) -> None:
    """Show every route with what it demands, and where that is said."""
    if allow and "public" not in fail_on:
        raise click.UsageError("--allow goes with --fail-on public")
    rows: list[dict[str, object]] = []
    found: dict[str, list[str]] = {}
    for rule, method, policy in state.routes.all():
        rows.append(
            {
                "route": rule.rule,
                "method": method,
                "endpoint": rule.endpoint,
                "access": policy.access.value,
                "decided by": policy.decided_by,
                "schemes": [one.scheme for one in policy.authenticators],
                "needs": [words for demand in policy.demands for words in demand.wording()],
                **_columns(list(_limits(policy, state)), output),
                "cors": list(policy.cors.origins) if policy.cors is not None else ["off"],
                "cors by": policy.cors_decided_by,
                "headers by": policy.headers_decided_by,
            }
        )
        allowed = any(fnmatchcase(rule.endpoint, pattern) for pattern in allow)
        for what in _findings(policy, allowed or state.routes.is_own(rule.endpoint)):
            found.setdefault(what, []).append(f"{method} {rule.rule} ({rule.endpoint})")
    print_rows(rows, output)
    _report({what: found[what] for what in _REMEDIES if what in fail_on and what in found})


def _columns(limits: Sequence[tuple[str, str]], output: str) -> dict[str, object]:
    """Return limits as programs read them, or, for people, each beside where it is said."""
    if output == "table":
        return {"limits": "; ".join(f"{limit}: {origin}" for limit, origin in limits) or None}
    return {
        "limits": [limit for limit, _ in limits],
        "limits by": [origin for _, origin in limits],
    }


def _findings(policy: RoutePolicy, expected: bool) -> Iterator[str]:
    if policy.undecided:
        yield "undecided"
    open_to_all = policy.access in (Access.PUBLIC, Access.OPTIONAL) and policy.decided_by != FLASK
    if open_to_all and not expected:
        yield "public"


def _report(found: dict[str, list[str]]) -> None:
    """Name the routes for which the command fails, and exit 1 if there are any."""
    for what, names in found.items():
        for name in names:
            click.echo(f"{what}: {printable(name)}", err=True)
        click.echo(f"{len(names)} {what}: {_REMEDIES[what]}", err=True)
    if found:
        click.get_current_context().exit(1)


def _limits(policy: RoutePolicy, state: AppState) -> Iterator[tuple[str, str]]:
    """Yield every limit of a route, the general one last, and where it is said."""
    for route_limit in policy.limits:
        mark = route_limit.mark
        some, shadow = mark.count is not None, mark.shadow
        if route_limit.fixed is None:
            yield _qualified(f"{route_limit.name}: computed", some, shadow), route_limit.origin
        for one in route_limit.fixed or ():
            yield _limit(one, some=some, shadow=shadow), route_limit.origin
    general = state.guard.limits.general
    if policy.unlimited:
        yield "not the general one", policy.unlimited_decided_by
    elif general is not None:
        yield _limit(general, shadow=state.loaded.settings.performance.rate_limit.shadow), SETTINGS


def _limit(limit: RateLimit, *, some: bool = False, shadow: bool = False) -> str:
    numbers = (
        f"{limit.count} per {limit.period} s, burst {limit.burst} "
        f"(at most {limit.most_in_a_period} in any {limit.period} s)"
    )
    return _qualified(numbers, some, shadow)


def _qualified(limit: str, some: bool, shadow: bool) -> str:
    limit += ", of some answers only" * some
    return limit + ", refuses nothing (shadow)" * shadow
