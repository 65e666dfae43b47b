"""`flask m9m routes`: list what every route requires, and check it in CI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import click

from ..extension.app_state import AppState
from ..guard.policy import FLASK, SETTINGS, Access, RoutePolicy
from ..ratelimit.limit import RateLimit
from ..settings.wording import printable
from .output import output_option, print_rows, with_app

_REMEDIES = {
    "undecided": "mark these routes with @require_auth or @public",
    "public": "these routes need no credential; --allow those that are meant to be public",
}
_WITHOUT_CREDENTIAL = (Access.PUBLIC, Access.OPTIONAL)
_LEAST_WANTED = ("headers by", "cors by", "decided by", "cors", "schemes", "endpoint")


@click.command()
@click.option(
    "--fail-on",
    type=click.Choice(list(_REMEDIES)),
    multiple=True,
    help="Exit 1 if such a route exists. undecided: only the settings' default decides about it. "
    "public: a route of the app that needs no credential. May be repeated.",
)
@click.option(
    "--allow",
    metavar="ENDPOINT",
    multiple=True,
    help="Endpoint, or a pattern such as status.*, that may be public. May be repeated.",
)
@click.option("--public", is_flag=True, help="List only routes that need no credential.")
@click.option(
    "--endpoint",
    "endpoints",
    metavar="ENDPOINT",
    multiple=True,
    help="List only this endpoint, or those of a pattern such as admin.*. May be repeated.",
)
@output_option
@with_app
def routes(
    state: AppState,
    fail_on: Sequence[str],
    allow: Sequence[str],
    public: bool,
    endpoints: Sequence[str],
    output: str,
) -> None:
    """List every route with its requirements and the source of each."""
    if allow and "public" not in fail_on:
        raise click.UsageError("--allow needs --fail-on public")
    rows: list[dict[str, object]] = []
    found: dict[str, list[str]] = {}
    for rule, method, policy in state.routes.all():
        listed = not public or policy.access in _WITHOUT_CREDENTIAL
        if listed and (not endpoints or _matches(rule.endpoint, endpoints)):
            rows.append(
                {"route": rule.rule, "method": method, "endpoint": rule.endpoint}
                | _requirements(policy, state, output)
            )
        allowed = _matches(rule.endpoint, allow)
        for finding in _findings(policy, allowed or state.routes.is_own(rule.endpoint)):
            found.setdefault(finding, []).append(f"{method} {rule.rule} ({rule.endpoint})")
    print_rows(rows, output, _LEAST_WANTED)
    state.routes.check()
    _report({kind: found[kind] for kind in _REMEDIES if kind in fail_on and kind in found})


def _matches(endpoint: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(endpoint, pattern) for pattern in patterns)


def _requirements(policy: RoutePolicy, state: AppState, output: str) -> dict[str, object]:
    return {
        "access": policy.access.value,
        "decided by": policy.decided_by,
        "schemes": [authenticator.scheme for authenticator in policy.authenticators],
        "needs": [words for demand in policy.demands for words in demand.wording()],
        **_columns(list(_limits(policy, state)), output),
        "cors": list(policy.cors.origins) if policy.cors is not None else ["off"],
        "cors by": policy.cors_decided_by,
        "headers by": policy.headers_decided_by,
    }


def _columns(limits: Sequence[tuple[str, str]], output: str) -> dict[str, object]:
    """Make the columns of limits and their sources: two lists, or in a table one text."""
    if output == "table":
        return {"limits": "; ".join(f"{limit}: {origin}" for limit, origin in limits) or None}
    return {
        "limits": [limit for limit, _ in limits],
        "limits by": [origin for _, origin in limits],
    }


def _findings(policy: RoutePolicy, expected: bool) -> Iterator[str]:
    if policy.undecided:
        yield "undecided"
    open_to_all = policy.access in _WITHOUT_CREDENTIAL and policy.decided_by != FLASK
    if open_to_all and not expected:
        yield "public"


def _report(found: dict[str, list[str]]) -> None:
    """Print the routes for which the command fails, and exit 1 if there are any."""
    for kind, names in found.items():
        for name in names:
            click.echo(f"{kind}: {printable(name)}", err=True)
        click.echo(f"{len(names)} {kind}: {_REMEDIES[kind]}", err=True)
    if found:
        click.get_current_context().exit(1)


def _limits(policy: RoutePolicy, state: AppState) -> Iterator[tuple[str, str]]:
    """Yield every limit of a route with its source, the general limit last."""
    for route_limit in policy.limits:
        mark = route_limit.mark
        some, shadow = mark.count is not None, mark.shadow
        if route_limit.fixed is None:
            yield _qualified(f"{route_limit.name}: computed", some, shadow), route_limit.place
        for limit in route_limit.fixed or ():
            yield _limit(limit, some=some, shadow=shadow), route_limit.place
    general = state.guard.limits.general
    if policy.unlimited:
        yield "exempt from the general limit", policy.unlimited_decided_by
    elif general is not None:
        yield _limit(general, shadow=state.loaded.settings.performance.rate_limit.shadow), SETTINGS


def _limit(limit: RateLimit, *, some: bool = False, shadow: bool = False) -> str:
    numbers = (
        f"{limit.count} per {limit.period_text}, burst {limit.burst} "
        f"(at most {limit.most_in_a_period} in any {limit.period_text})"
    )
    return _qualified(numbers, some, shadow)


def _qualified(limit: str, some: bool, shadow: bool) -> str:
    limit += ", counts only some responses" * some
    return limit + ", refuses no request (shadow)" * shadow
