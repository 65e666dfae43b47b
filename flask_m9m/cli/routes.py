"""`flask m9m routes`."""

from __future__ import annotations

import click

from ..policy import RoutePolicy
from ..state import AppState
from .output import output_option, print_rows, with_app


@click.command()
@click.option(
    "--fail-on", type=click.Choice(["undecided"]), help="Exit 1 if there is such a route."
)
@output_option
@with_app
def routes(state: AppState, fail_on: str | None, output: str) -> None:
    """Show every route with what it demands."""
    rows, undecided = [], 0
    for rule, method, policy in state.routes.all():
        undecided += policy.undecided
        rows.append(
            {
                "route": rule.rule,
                "method": method,
                "endpoint": rule.endpoint,
                "access": policy.access.value,
                "decided by": policy.decided_by,
                "needs": _needs(policy),
                "limits": _limits(policy),
                "cors": policy.cors.origins if policy.cors is not None else ["off"],
            }
        )
    print_rows(rows, output)
    if fail_on and undecided:
        click.echo(f"{undecided} undecided: mark them with @require_auth or @public", err=True)
        click.get_current_context().exit(1)


def _needs(policy: RoutePolicy) -> list[str]:
    needs = []
    for one in policy.requirements:
        needs += [f"scope {scope}" for scope in one.scopes]
        needs += [f"any scope of {' '.join(one.any_scope)}"] * bool(one.any_scope)
        needs += [f"role {' or '.join(one.roles)}"] * bool(one.roles)
        needs += ["a fresh token"] * one.fresh
    for mark in policy.signatures:
        needs.append(f"a URL signed for {mark.purpose}" if mark.purpose else "a signed URL")
    return needs


def _limits(policy: RoutePolicy) -> list[str]:
    limits = ["not the general one"] * policy.unlimited
    for route_limit in policy.limits:
        what = ", of some answers only" * (route_limit.mark.count is not None)
        what += ", refuses nothing (shadow)" * route_limit.mark.shadow
        if route_limit.fixed is None:
            limits.append(f"{route_limit.name}: computed{what}")
        for one in route_limit.fixed or ():
            limits.append(
                f"{one.count} per {one.period} s, burst {one.burst} "
                f"(at most {one.most_in_a_period} in any {one.period} s){what}"
            )
    return limits
